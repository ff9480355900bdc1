"""Data of runs: how soon a run reads what its node has, what a lazy mount costs, how fast outputs go."""

import hashlib
import json
import shutil
import statistics
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil
from measure import Report, SkippedError, summary
from minio import Minio
from stack import Stack, request, run_body, submit, wait_terminal

from stellwerk_gpu_executor.rclone import missing

ROOT = Path(__file__).parents[2]
MNIST = ROOT / "training/examples/keras-mnist/data"
MB = 1_000_000
ROUNDS = 7
UPLOADS = 3

FIRST_BYTE = """
import os, sys, time
if len(sys.argv) > 1:
    with open(os.path.join(sys.argv[1], sorted(os.listdir(sys.argv[1]))[0]), "rb") as f: f.read(1)
print(time.time())
"""
READ_MNIST = """
import gzip, json, os, sys, time
def read(folder):
    start = time.perf_counter()
    for name in sorted(os.listdir(folder)):
        with gzip.open(os.path.join(folder, name)) as f: f.read()
    return time.perf_counter() - start
print(json.dumps([read(sys.argv[1]), read(sys.argv[1])]))
"""
WRITE = """
import os, time
block = os.urandom(1 << 20)
for n in range(4):
    with open(f"outputs/part-{n}", "wb") as out:
        for k in range(250): out.write(block[:-16] + f"{n:08d}{k:08d}".encode())
print(time.time())
"""


def upload(http: httpx2.Client, name: str, files: list[Path]) -> None:
    """Register files as a dataset, as the SDK does: blobs by presigned address, then a list."""
    entries = []
    for path in files:
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        entries.append({"path": path.name, "size": path.stat().st_size, "sha256": digest})
    blobs = [{"sha256": each["sha256"], "size": each["size"]} for each in entries]
    plan = request("POST", http, "/blobs", json={"blobs": blobs}).json()
    places = {each["sha256"]: path for each, path in zip(entries, files, strict=True)}
    for item in plan["missing"]:
        with places[item["sha256"]].open("rb") as source:
            answer = httpx2.put(item["url"], content=source, timeout=300, headers={
                "content-length": str(places[item["sha256"]].stat().st_size)})  # fmt: skip
        assert answer.status_code == 200, answer.text
    source_spec = {"source": {"kind": "files", "entries": entries}}
    made = request("POST", http, "/datasets", json=source_spec).json()
    body = {"name": name, "create_new_version": True}
    done = request("POST", http, f"/datasets/{made['dataset_id']}/register", json=body)
    assert done.status_code < 300, done.text


def ran(http: httpx2.Client, script: str, inputs: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A run to its end: its view and its log."""
    arguments = [{"input": name} for name in inputs]
    body = run_body(script, target="bench", inputs=inputs, arguments=arguments)
    view = wait_terminal(http, submit(http, body), 300)
    log = request("GET", http, f"/runs/{view['run_id']}/logs/user_logs/std_log.txt").text
    assert view["status"] == "Completed", log
    return view, log


def made(folder: Path, count: int, size: int) -> list[Path]:
    """Files that have nothing in common."""
    block = hashlib.shake_256(str(folder).encode()).digest(MB)
    paths = [folder / f"part-{n}" for n in range(count)]
    for n, path in enumerate(paths):
        with path.open("wb") as out:
            for k in range(size // MB):
                out.write(block[:-16] + f"{n:08d}{k:08d}".encode())
    return paths


def reading(stack: Stack, report: Report) -> None:
    """1 GB that is on the node: submit → first byte read, over the same run without data."""
    folder = stack.home / "bench-data"
    folder.mkdir()
    delays: dict[bool, list[float]] = {True: [], False: []}
    with stack.http(timeout=120) as http:
        upload(http, "gigabyte", made(folder, 4, 250 * MB))
        shutil.rmtree(folder)
        given = {"data": {"dataset": "gigabyte", "lazy": False}}
        ran(http, FIRST_BYTE, given)
        for number in range(ROUNDS * 2):
            started = time.time()
            _, log = ran(http, FIRST_BYTE, given if number % 2 else {})
            delays[bool(number % 2)].append(float(log) - started)
    pairs = [(a - b) * 1000 for a, b in zip(delays[True], delays[False], strict=True)]
    value = statistics.median(pairs)
    report.add("datasets.second_run_reads", value, "ms", "<= 50", value <= 50,
               without_data=summary(delays[False]), **summary(pairs))  # fmt: skip


def lazy(stack: Stack, report: Report) -> None:
    """The four MNIST files by a lazy mount that has to fetch them, beside a local copy."""
    if why := missing():
        raise SkippedError(why)
    ratios: dict[str, list[float]] = {"first": [], "again": []}
    with stack.http() as http:
        upload(http, "bench-mnist", sorted(MNIST.glob("*.gz")))
        for _ in range(ROUNDS):
            shutil.rmtree(stack.home / "executor/cache", ignore_errors=True)
            times = {}
            for way in ({"lazy": True}, {"mode": "download"}):
                _, log = ran(http, READ_MNIST, {"data": {"dataset": "bench-mnist", **way}})
                times[str(way)] = json.loads(log)
            mounted, copied = times.values()
            for number, found in enumerate(ratios.values()):
                found.append(mounted[number] / copied[number])
    for kind, found in ratios.items():
        value = statistics.median(found)
        report.add(f"datasets.lazy_mnist_{kind}", value, "ratio", "<= 1.5", value <= 1.5, **summary(found))  # fmt: skip


def outputs(stack: Stack, report: Report) -> None:
    """1 GB of outputs to the store by the executor, beside the plain client; the executor's memory."""
    state = json.loads((stack.home / "supervisor.json").read_text())
    keys = json.loads((stack.home / "secrets/s3.json").read_text())
    client = Minio(f"127.0.0.1:{state['ports']['s3']}", keys["access_key"], keys["secret_key"], secure=False)  # fmt: skip
    folder, rates, grown = stack.home / "bench-out", [], []
    with stack.http(timeout=120) as http:
        for number in range(UPLOADS):
            (folder / str(number)).mkdir(parents=True)
            paths = made(folder / str(number), 4, 262 * MB)
            started = time.perf_counter()
            for path in paths:
                client.fput_object("stellwerk", f"bench/{number}/{path.name}", str(path))
            plain = time.perf_counter() - started
            shutil.rmtree(folder)
            executor = psutil.Process(stack.processes()["gpu-executor"])
            before = executor.memory_info().rss
            Path(f"/proc/{executor.pid}/clear_refs").write_text("5")  # the peak counts anew
            view, log = ran(http, WRITE, {})
            ended = datetime.fromisoformat(view["ended_at"]).timestamp()
            rates.append(plain / (ended - float(log)))
            grown.append((_peak(executor.pid) - before) / MB)
    value, memory = statistics.median(rates), max(grown)
    report.add("datasets.upload_rate", value, "of plain client", ">= 0.8", value >= 0.8, **summary(rates))  # fmt: skip
    report.add("datasets.upload_memory", memory, "MB", "<= 150", memory <= 150, **summary(grown))


def _peak(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024
