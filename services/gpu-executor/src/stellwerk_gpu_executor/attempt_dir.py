"""The attempt folder: every file the executor and the supervisor of a run share.

docs/run-protocol.md describes the files. What is written again is replaced by a rename; reads are
tolerant: a file that is absent or torn is None, because after a crash both happen. Records never
change once they are whole, so each is read once.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from stellwerk_kit.beneath import open_beneath

READ_BYTES = 65536
PROCESS_LOGS = "user_logs"
"""Subfolder with one log a process, where a run has several."""
NOT_BEGUN = "not_begun.json"
OF_A_START = ("run.sock", "std.log", "records.jsonl", "exit.json", "shim.json", NOT_BEGUN)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, path: str) -> Self | None:
        """Return the record in `path`; None if there is none, or not a whole one."""
        try:
            data = _bytes(path)
            return cls.model_validate_json(data) if data.startswith(b"{") else None
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
        self._prefix = f"{self.path}/"  # text: a Path for each file would cost more than its use
        self._owner = owner
        self._launch: dict[str, Any] | None = None
        self._shim: ShimRecord | None = None
        self._exit: ExitRecord | None = None

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.path / "std.log"

    @property
    def records(self) -> Path:
        """What the run reported."""
        return self.path / "records.jsonl"

    @property
    def uploads(self) -> Path:
        """Where the in-run library puts files."""
        return self.path / "uploads"

    @property
    def socket(self) -> Path:
        """The run's own socket."""
        return self.path / "run.sock"

    def create(self) -> None:
        """Make the folder, for its owner only."""
        try:
            os.mkdir(self._prefix, 0o700)  # noqa: PTH102
        except FileExistsError:
            self.path.chmod(0o700)
        except FileNotFoundError:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(f"{self._prefix}uploads", 0o700)  # noqa: PTH102

    def write_launch(self, launch: Mapping[str, Any]) -> None:
        """Write what the supervisor needs to start the run."""
        self._launch = dict(launch)
        self._put("launch.json", json.dumps(launch))

    def read_launch(self) -> dict[str, Any] | None:
        """Return what `write_launch` wrote."""
        if self._launch is None:
            self._launch = self._read_object("launch.json")
        return self._launch

    def forget_start(self) -> None:
        """Remove what a supervisor left that ended before the run's program was loaded."""
        for name in OF_A_START:
            (self.path / name).unlink(missing_ok=True)

    def not_begun(self) -> str | None:
        """Why a warm process did not begin the run, if a supervisor has found that."""
        told = self._read_object(NOT_BEGUN)
        return None if told is None else str(told["why"])

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
        """Return the deadline; None if there is none. Until it is renewed the launch has it."""
        try:
            return float(_bytes(self._prefix + "lease"))
        except ValueError:
            return None
        except OSError:
            lease = (self.read_launch() or {}).get("lease")
            return lease if isinstance(lease, float) else None

    def read_shim(self) -> ShimRecord | None:
        """Return who runs the attempt, once the run's program is started."""
        if self._shim is None:
            self._shim = ShimRecord.read(self._prefix + "shim.json")
        return self._shim

    def read_exit(self) -> ExitRecord | None:
        """Return how the attempt ended, once it has."""
        if self._exit is None:
            self._exit = ExitRecord.read(self._prefix + "exit.json")
        return self._exit

    def write_exit(self, record: ExitRecord) -> None:
        """Write the exit record durably, in place of a supervisor that could not."""
        self._write("exit.json", record.model_dump_json(), durable=True)

    def log_tail(self, size: int) -> bytes:
        """The last ``size`` bytes of the log, if there is one."""
        try:
            file = open_beneath(self.path, self.log)
        except OSError:
            return b""
        try:
            start = max(0, os.fstat(file.descriptor).st_size - size)
            return os.pread(file.descriptor, size, start)
        finally:
            file.close()

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
            value = json.loads(_bytes(self._prefix + name))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _write(self, name: str, text: str, *, durable: bool = False) -> None:
        """Replace the file: a reader sees the old one or the whole new one."""
        self._put(f"{name}.new", text, durable=durable)
        os.rename(f"{self._prefix}{name}.new", self._prefix + name)  # noqa: PTH104
        if durable:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(folder)
            os.close(folder)

    def _put(self, name: str, text: str, *, durable: bool = False) -> None:
        descriptor = os.open(self._prefix + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            data = text.encode()
            while data:
                data = data[os.write(descriptor, data) :]
            if self._owner is not None:
                os.fchown(descriptor, self._owner, self._owner)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _bytes(path: str) -> bytes:
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(source, READ_BYTES)
        while len(data) % READ_BYTES == 0 and (more := os.read(source, READ_BYTES)):
            data += more
    finally:
        os.close(source)
    return data
