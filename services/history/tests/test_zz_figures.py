import asyncio, statistics, time, json
from history_setup import *
from stellwerk import events as e
from stellwerk import subjects


async def test_figures(start, sim):
    await start()
    sub = await sim.bus.client.subscribe("sw.evt.archive.>")
    ts = []
    wake = []
    fin = []
    for i in range(30):
        r = await sim.submit()
        await sim.until_running(r)
        await sim.write(r, b"hello\n")
        await sim.follow(r, 6)
        seq = (await sim.run(r)).sequence
        w = asyncio.ensure_future(
            sim.ask("run-events", EventsReply, run_id=r, after=seq, wait_s=10)
        )
        await asyncio.sleep(0.01)
        t = time.perf_counter()
        await sim.end(r, b"hello\n")
        fin.append(time.perf_counter() - t)
        await sub.next_msg(10)
        ts.append(time.perf_counter() - t)
        await w
    print(
        "finalizing publish ack",
        statistics.median(fin) * 1e3,
        "-> RunArchived seen ms",
        statistics.median(ts) * 1e3,
        min(ts) * 1e3,
    )
    # log visible latency
    r = await sim.submit()
    await sim.until_running(r)
    lat = []
    off = 0
    for i in range(30):
        w = asyncio.ensure_future(sim.read(r, offset=off, wait_s=10))
        await asyncio.sleep(0.01)
        t = time.perf_counter()
        await sim.write(r, b"line\n", offset=off)
        off += 5
        await w
        lat.append(time.perf_counter() - t)
    print("log publish -> reader ms", statistics.median(lat) * 1e3)
    # metrics end to end
    N = 100_000

    async def one(f):
        await sim.log(
            r,
            f,
            *[
                {"k": "metric", "n": "loss", "t": "scalar", "v": 0.5 * i, "s": i, "ts": 1.5 + i}
                for i in range(f, f + 500)
            ],
        )

    bodies = []
    t = time.perf_counter()
    for f in range(0, N, 500):
        await one(f)
    pub = time.perf_counter() - t
    from stellwerk.answers import MetricList

    while True:
        p = await sim.ask("run-metrics", MetricList, run_id=r, after=N - 1, limit=1)
        if p.points:
            break
        await asyncio.sleep(0.01)
    print("metrics e2e/s", N / (time.perf_counter() - t), "publish alone", N / pub)
    # event throughput backlog
    t = time.perf_counter()
    rid = None
    M = 1000
    await asyncio.gather(*(sim.submit() for _ in range(M)))
    last = await sim.submit()
    t2 = time.perf_counter() - t
    await sim.run(last, wait_s=20)
    print("submit events/s published", M / t2, "projected", M / (time.perf_counter() - t))
