"""The attempt folder: every file the executor and the supervisor of a run share.

docs/run-protocol.md describes the files. Writes are atomic (temporary file, rename), reads are
tolerant: a file that is absent or torn is None, because after a crash both happen.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

PROCESS_LOGS = "user_logs"
"""Subfolder with one log a process, where a run has several."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the record in `path`; None if there is none, or not a whole one."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None


class ShimRecord(_Record):
    """Which processes run the attempt. The start ticks tell a reused process id apart.

    ``began_mono``: when the program was loaded, on the machine's monotonic clock.
    """

    pid: int
    start_ticks: int
    child_pid: int
    child_start_ticks: int
    boot_id: str
    started_at: float
    started_mono: float
    began_mono: float | None = None


class ExitRecord(_Record):
    """How the attempt ended. Times in seconds since the epoch, sizes in bytes."""

    run_id: str
    attempt: int
    exit_code: int | None
    signal: int | None
    oom: bool
    reason: str
    message: str | None
    started_at: float
    ended_at: float
    duration_s: float
    cpu_s: float
    peak_rss_bytes: int
    log_bytes: int
    log_sha256: str
    log_dropped_bytes: int
    records_bytes: int


class AttemptDir:
    """Paths and files of one attempt of one run. ``owner``: whose files they are, if not ours."""

    def __init__(self, path: Path, owner: int | None = None) -> None:
        self.path = path.absolute()
        self._owner = owner
        self.log = self.path / "std.log"
        self.records = self.path / "records.jsonl"
        self.uploads = self.path / "uploads"
        self.socket = self.path / "run.sock"

    def create(self) -> None:
        """Make the folder, for its owner only."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self.uploads.mkdir(mode=0o700, exist_ok=True)

    def write_launch(self, launch: Mapping[str, Any]) -> None:
        """Write what the supervisor needs to start the run."""
        self._write("launch.json", json.dumps(launch))

    def read_launch(self) -> dict[str, Any] | None:
        """Return what `write_launch` wrote."""
        return self._read_object("launch.json")

    def forget_start(self) -> None:
        """Remove what a supervisor left that ended before the run's program was loaded."""
        for name in ("run.sock", "std.log", "records.jsonl", "exit.json", "shim.json"):
            (self.path / name).unlink(missing_ok=True)

    def write_stop(self, reason: str, grace_s: float | None, message: str | None) -> None:
        """Say why the run is about to be stopped; `grace_s` None means the launch's own.

        A repeated stop keeps the first reason and the shorter grace, whether or not the
        supervisor has read the first one.
        """
        stop: dict[str, Any] = {"reason": reason, "message": message}
        before = self.read_stop() or {}
        stop |= {name: before[name] for name in ("reason", "message") if name in before}
        graces = [grace for grace in (grace_s, before.get("grace_s")) if grace is not None]
        self._write("stop.json", json.dumps(stop | ({"grace_s": min(graces)} if graces else {})))

    def read_stop(self) -> dict[str, Any] | None:
        """Return what `write_stop` wrote; None if nobody asked for the end."""
        return self._read_object("stop.json")

    def write_lease(self, deadline_mono: float | None) -> None:
        """Let the run live until `deadline_mono` on the monotonic clock; None: for ever."""
        self._write("lease", "none" if deadline_mono is None else repr(deadline_mono))

    def read_lease(self) -> float | None:
        """Return the deadline; None if there is none."""
        try:
            return float((self.path / "lease").read_text())
        except (OSError, ValueError):
            return None

    def read_shim(self) -> ShimRecord | None:
        """Return who runs the attempt, once the run's program is started."""
        return ShimRecord.read(self.path / "shim.json")

    def read_exit(self) -> ExitRecord | None:
        """Return how the attempt ended, once it has."""
        return ExitRecord.read(self.path / "exit.json")

    def write_exit(self, record: ExitRecord) -> None:
        """Write the exit record durably, in place of a supervisor that could not."""
        self._write("exit.json", record.model_dump_json(), durable=True)

    def log_facts(self) -> dict[str, Any]:
        """Return sizes and digest as the exit record has them, measured now."""
        digest, size = hashlib.sha256(), 0
        if self.log.exists():
            with self.log.open("rb") as source:
                digest = hashlib.file_digest(source, "sha256")
                size = source.tell()
        records = self.records.stat().st_size if self.records.exists() else 0
        return {"log_bytes": size, "log_sha256": digest.hexdigest(), "records_bytes": records}

    def _read_object(self, name: str) -> dict[str, Any] | None:
        try:
            value = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _write(self, name: str, text: str, *, durable: bool = False) -> None:
        temporary = self.path / f"{name}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            if self._owner is not None:
                os.fchown(descriptor, self._owner, self._owner)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        temporary.rename(self.path / name)
        if durable:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(folder)
            os.close(folder)
