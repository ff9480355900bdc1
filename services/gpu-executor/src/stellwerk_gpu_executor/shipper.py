"""Ships an attempt's log and records from its folder to the bus, from where it left off.

What was acknowledged is noted in ``shipped.json``; after a crash a little is sent again, and
readers drop it by its offset. Nothing is taken from the folder before the broker has it.
"""

import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stellwerk import subjects
from stellwerk.events import LogClosure
from stellwerk_gpu_executor import marks, preparation_log
from stellwerk_gpu_executor.attempt_dir import PROCESS_LOGS, AttemptDir
from stellwerk_kit.beneath import open_beneath
from stellwerk_kit.bus import Bus
from stellwerk_kit.failpoints import failpoint

CHUNK = 256 * 1024
RECORDS_A_BATCH = 2000
_FOR_US = frozenset({"file", "image", "artifact", marks.KIND})
"""Kinds of records that this executor looks at."""
MAX_LOG_FILES = 100

Resolve = Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]]


class Shipper:
    """One attempt's shipping; ``resolve`` turns a record that names a file into what is sent."""

    def __init__(
        self, bus: Bus, run_id: str, attempt: int, folder: AttemptDir, resolve: Resolve
    ) -> None:
        self._bus, self._run, self._attempt = bus, run_id, attempt
        self._folder, self._resolve = folder, resolve
        self._log, self._records_file = folder.log, folder.records
        self._state_file = folder.path / "shipped.json"
        self._offsets: dict[str, int] = {}
        self._records_offset = 0
        self.records = 0
        self._load()

    @property
    def shipped(self) -> int:
        """Bytes of all logs so far."""
        return sum(self._offsets.values())

    async def ship(self, work: Path) -> None:
        """Send everything that is there now."""
        await self._ship_log("std", "user_logs/std_log.txt", self._log)
        for name, path in self._files(work):
            await self._ship_log(subjects.file_stream(name), name, path)
        await self._ship_records()

    async def ship_log(self) -> None:
        """Send new output and records alone: the frequent case while a run prints."""
        await self._ship_log("std", "user_logs/std_log.txt", self._log)
        await self._ship_records()

    def closures(self, work: Path) -> tuple[LogClosure, ...]:
        """Length and SHA-256 of each log, as shipped."""
        logs = [("std", "user_logs/std_log.txt", self._log)]
        logs += [(subjects.file_stream(name), name, path) for name, path in self._files(work)]
        return tuple(
            LogClosure(
                stream=stream,
                path=name,
                bytes=self._offsets.get(stream, 0),
                sha256=_sha256(self._folder.path, path, self._offsets.get(stream, 0)),
            )
            for stream, name, path in logs
            if stream == "std" or self._offsets.get(stream, 0)
        )

    def _files(self, work: Path) -> list[tuple[str, Path]]:
        """Logs that are files: those under ``./logs``, and one a process of a distributed run."""
        own = [(work, path) for path in _log_files(work / "logs")]
        prepared = self._folder.path / preparation_log.NAME
        if prepared.exists():
            own.append((self._folder.path, prepared))
        several = [
            (self._folder.path, path) for path in _log_files(self._folder.path / PROCESS_LOGS)
        ]
        return [(path.relative_to(base).as_posix(), path) for base, path in (*several, *own)]

    async def _ship_log(self, stream: str, name: str, path: Path) -> None:
        offset = self._offsets.get(stream, 0)
        try:
            file = open_beneath(self._folder.path, path)
        except OSError:
            return
        while chunk := os.pread(file.descriptor, CHUNK, offset):
            part = f"{stream}/{offset}-{offset + len(chunk)}"
            headers = {
                "Nats-Msg-Id": f"log/{self._run}/{self._attempt}/{part}",
                "Sw-Offset": str(offset),
                "Sw-Path": quote(name),
            }
            subject = subjects.log(self._run, self._attempt, stream)
            await self._bus.publish_until_stored(subject, chunk, headers)
            failpoint("gpu-executor.after_log")
            offset += len(chunk)
            self._offsets[stream] = offset
            self._save()

    async def _ship_records(self) -> None:
        while lines := _lines(self._records_file, self._records_offset):
            first, last = self.records, self.records + len(lines)
            records = b",".join(lines) if _plain(lines) else await self._resolved(lines)
            body = b'{"first":%d,"records":[%b]}' % (first, records)
            headers = {"Nats-Msg-Id": f"metric/{self._run}/{self._attempt}/{first}-{last}"}
            await self._bus.publish_until_stored(
                subjects.metric(self._run, self._attempt), body, headers
            )
            self.records = last
            self._records_offset += sum(len(line) for line in lines)
            self._save()

    async def _resolved(self, lines: list[bytes]) -> bytes:
        """Records as JSON, one by one: files they name are uploaded."""
        published = []
        for line in lines:
            record = await self._resolve(_parse(line))
            published.append(record if record is not None else {"k": "ignored"})
        return json.dumps(published, separators=(",", ":")).encode()[1:-1]

    def _load(self) -> None:
        try:
            state = json.loads(self._state_file.read_bytes())
        except (OSError, ValueError):
            return
        self._offsets = {str(name): int(offset) for name, offset in state["offsets"].items()}
        self._records_offset, self.records = int(state["records_offset"]), int(state["records"])

    def _save(self) -> None:
        state = {
            "offsets": self._offsets,
            "records_offset": self._records_offset,
            "records": self.records,
        }
        temporary = self._state_file.with_suffix(".new")
        temporary.write_text(json.dumps(state))
        temporary.replace(self._state_file)


def _log_files(folder: Path) -> list[Path]:
    """Regular files below ``./logs``, never through a link, at most 100."""
    found: list[Path] = []
    if folder.is_symlink():
        return found
    for root, folders, files in os.walk(folder):
        folders.sort()
        found += [Path(root, name) for name in sorted(files) if not Path(root, name).is_symlink()]
        if len(found) >= MAX_LOG_FILES:
            break
    return found[:MAX_LOG_FILES]


def _lines(path: Path, offset: int) -> list[bytes]:
    """Whole lines from ``offset``, at most 2,000 or 256 KiB (one longer line comes alone)."""
    try:
        file = open_beneath(path.parent, path)
    except OSError:
        return []
    data = os.pread(file.descriptor, CHUNK, offset)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == CHUNK:
        data = os.pread(file.descriptor, 2 * CHUNK, offset)
        end = data.find(b"\n") + 1
    return data[:end].splitlines(keepends=True)[:RECORDS_A_BATCH]


def _plain(lines: list[bytes]) -> bool:
    """Whether all are records that may go as they are."""
    try:
        records = json.loads(b"[%b]" % b",".join(lines))
    except (ValueError, RecursionError):
        return False
    return len(records) == len(lines) and all(
        isinstance(record, dict) and record.get("k") not in _FOR_US for record in records
    )


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # the latter when it is nested too deeply
        return {"k": "malformed"}
    return record if isinstance(record, dict) else {"k": "malformed"}


def _sha256(top: Path, path: Path, size: int) -> str:
    digest = hashlib.sha256()
    try:
        file = open_beneath(top, path)
    except OSError:
        return digest.hexdigest()
    offset = 0
    while offset < size:
        chunk = os.pread(file.descriptor, min(1 << 20, size - offset), offset)
        if not chunk:
            break
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()
