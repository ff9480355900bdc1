"""Files under ``./logs`` of a run that this process drives: sent while they grow."""

import base64
import hashlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stellwerk.client import Client
from stellwerk.errors import ServiceUnavailableError, UserError
from stellwerk.run_records import LOG_CHUNK, MAX_LOGS, LogChunk, LogChunkView, LogEnd

LOOK_S = 1.0


@dataclass
class _Sent:
    """What the platform has of one file."""

    offset: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class LogFiles:
    """Looks at a folder once a second, from a thread, until :meth:`finish`."""

    def __init__(self, client: Client, path: str, folder: Path) -> None:
        self._client, self._path, self._folder = client, f"{path}/logs", folder
        self._sent: dict[str, _Sent] = {}
        self._over, self._sending = threading.Event(), threading.Lock()
        threading.Thread(target=self._work, name="run-logs", daemon=True).start()

    def finish(self) -> tuple[LogEnd, ...]:
        """Send the rest; returns what was sent of each file."""
        self._over.set()
        self._send_all()
        return tuple(
            LogEnd(path=name, bytes=sent.offset, sha256=sent.digest.hexdigest())
            for name, sent in self._sent.items()
            if sent.offset
        )

    def _work(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                self._send_all()
            except ServiceUnavailableError:
                continue  # tried again
            except UserError:
                return  # the run was ended elsewhere

    def _send_all(self) -> None:
        with self._sending:
            for path in _files(self._folder):
                name = f"logs/{path.relative_to(self._folder).as_posix()}"
                self._send(name, path)

    def _send(self, name: str, path: Path) -> None:
        sent = self._sent.setdefault(name, _Sent())
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            while data := os.pread(file, LOG_CHUNK, sent.offset):
                chunk = LogChunk(path=name, offset=sent.offset, data=base64.b64encode(data))
                self._client.call("POST", self._path, LogChunkView, body=chunk)
                sent.digest.update(data)
                sent.offset += len(data)
        finally:
            os.close(file)


def _files(folder: Path) -> list[Path]:
    """Regular files below a folder, never through a link, at most 100."""
    found: list[Path] = []
    for here, folders, files in os.walk(folder):
        folders.sort()
        paths = (Path(here, name) for name in sorted(files))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
        if len(found) >= MAX_LOGS:
            break
    return found[:MAX_LOGS]
