"""The standing pull on a real broker: few requests, nothing held back, nothing lost at a stop."""

import asyncio

import pytest
from nats.errors import Error as NatsError

from stellwerk.events import Envelope, RunSubmitted
from stellwerk.runspec import RunSpec
from stellwerk_kit import pull as module
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.pull import Pull
from stellwerk_kit.testing import wait_until

SPEC = RunSpec.model_validate({"source": {"inline": {"a.py": "print(1)"}}, "script": "a.py"})
CONSUMER = "scheduler-facts"


async def publish(bus: Bus, *numbers: int) -> None:
    for number in numbers:
        event = RunSubmitted(run_id=f"r{number}", experiment="e", spec=SPEC)
        await bus.publish(Envelope.wrap(event, source="/test", time=SystemClock().now()))


def run_of(message: object) -> str:
    return str(message.subject.split(".")[3])  # type: ignore[attr-defined]


async def test_one_request_covers_many_messages(bus: Bus) -> None:
    pull, asked = Pull(bus, "SW_EVENTS", CONSUMER), 0
    send = bus.client.send

    def counting(subject: str, *rest: object, **options: object) -> None:
        nonlocal asked
        asked += subject.startswith("$JS.API.CONSUMER.MSG.NEXT")
        send(subject, *rest, **options)  # type: ignore[arg-type]

    bus.client.send = counting  # type: ignore[method-assign]
    got: list[str] = []
    for number in range(8):
        await publish(bus, number)
        (message,) = await pull.some(8)
        got.append(run_of(message))
        message.ack()
    assert got == [f"r{number}" for number in range(8)]
    assert asked == 1
    await pull.close()


async def test_never_more_than_was_asked_for(bus: Bus) -> None:
    await publish(bus, *range(5))
    pull = Pull(bus, "SW_EVENTS", CONSUMER)
    first = await pull.some(2)
    info = await bus.js.consumer_info("SW_EVENTS", CONSUMER)
    assert info.num_ack_pending == len(first) + len(pull.waiting) <= 2
    await pull.close()


async def test_what_was_not_taken_is_given_back(bus: Bus) -> None:
    await publish(bus, 1)
    pull = Pull(bus, "SW_EVENTS", CONSUMER)
    (taken,) = await pull.some(3)
    taken.ack()
    await publish(bus, 2, 3)
    await wait_until(lambda: len(pull.waiting) == 2)
    await pull.close()
    other = Pull(bus, "SW_EVENTS", CONSUMER)
    async with asyncio.timeout(3):  # sooner than the time to be acknowledged is over
        found = {run_of(message) for _ in range(2) for message in await other.some(1)}
    assert found == {"r2", "r3"}
    await other.close()


async def test_messages_that_come_fast_are_taken_together(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORTH_A_WAIT", 0)
    pull = Pull(bus, "SW_EVENTS", CONSUMER)
    messages, _ = await asyncio.gather(
        pull.some(16, linger_s=0.5),
        publish(bus, *range(6)),
    )
    assert len(messages) == 6
    await pull.close()


async def test_what_gathered_at_the_broker_comes_at_once(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORTH_A_WAIT", 0)
    await publish(bus, *range(6))
    pull = Pull(bus, "SW_EVENTS", CONSUMER)
    assert [run_of(each) for each in await pull.some(16, linger_s=0.01)] == [
        f"r{number}" for number in range(6)
    ]
    asyncio.get_running_loop().call_later(0.2, pull.stop)
    async with asyncio.timeout(5):
        assert await pull.some(16, linger_s=0.01) == []
    await pull.close()


@pytest.mark.parametrize("begun_before", [True, False])
async def test_nothing_lingers_while_somebody_waits(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, *, begun_before: bool
) -> None:
    monkeypatch.setattr(module, "WORTH_A_WAIT", 0)
    pull, haste = Pull(bus, "SW_EVENTS", CONSUMER), asyncio.Event()
    if begun_before:
        haste.set()
    taking = asyncio.ensure_future(pull.some(16, linger_s=600, haste=haste))
    await publish(bus, 1)
    assert begun_before or not taking.done()
    haste.set()
    async with asyncio.timeout(20):
        assert [run_of(each) for each in await taking] == ["r1"]
    await pull.close()


async def test_a_stop_ends_the_wait(bus: Bus) -> None:
    pull = Pull(bus, "SW_EVENTS", CONSUMER)
    asyncio.get_running_loop().call_later(0.1, pull.stop)
    async with asyncio.timeout(5):
        assert await pull.some(1) == []
    await pull.close()


async def test_a_consumer_that_is_not_there_is_an_error(bus: Bus) -> None:
    pull = Pull(bus, "SW_EVENTS", "nobody")
    with pytest.raises(NatsError, match="503"):
        await pull.some(1)
    await pull.close()
