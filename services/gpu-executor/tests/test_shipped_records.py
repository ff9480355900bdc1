"""Batches of records: they travel as they were written, unless one names a file or is none."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stellwerk_gpu_executor.attempt_dir import AttemptDir
from stellwerk_gpu_executor.shipper import Shipper
from stellwerk_kit.bus import Bus
from stellwerk_kit.testing import wait_until
from stellwerk_kit.wire import Message

METRIC = b'{"k":"metric","n":"a\\u00e9","t":"scalar","v": 0.1,"s":null,"ts":1.5}\n'
IMAGE = b'{"k":"image","n":"i","f":"i.png","ts":2}\n'
NESTED = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"


async def _resolve(record: dict[str, Any]) -> dict[str, Any] | None:
    return {**record, "sha256": "x"} if record.get("k") == "image" else record


@pytest.mark.parametrize(
    ("lines", "records"),
    [
        ([METRIC, METRIC], [json.loads(METRIC)] * 2),
        ([METRIC, IMAGE], [json.loads(METRIC), {**json.loads(IMAGE), "sha256": "x"}]),
        ([METRIC, b"no JSON\n"], [json.loads(METRIC), {"k": "malformed"}]),
        ([b'{"k":"a"},{"k":"b"}\n', METRIC], [{"k": "malformed"}, json.loads(METRIC)]),
        ([NESTED, METRIC], [{"k": "malformed"}, json.loads(METRIC)]),
        ([b"[1]\n", METRIC], [{"k": "malformed"}, json.loads(METRIC)]),
    ],
)
async def test_each_line_is_one_record(
    bus: Bus, tmp_path: Path, lines: list[bytes], records: list[dict[str, Any]]
) -> None:
    heard: list[Message] = []
    await bus.client.listen("sw.metric.r1.1", heard.append)
    await bus.flush()
    log = tmp_path / "std.log"
    (tmp_path / "records.jsonl").write_bytes(b"".join(lines))
    folder = SimpleNamespace(path=tmp_path, log=log, records=tmp_path / "records.jsonl")
    shipper = Shipper(bus, "r1", 1, cast(AttemptDir, folder), _resolve)
    await shipper.ship_log()
    await wait_until(lambda: heard)
    assert json.loads(heard[0].data) == {"first": 0, "records": records}
    await shipper.ship_log()
    await bus.flush()
    assert len(heard) == 1
