"""Names of a run's logs, and what its archive lists. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stellwerk.log_names import BUILD_LOG, STD_LOG, put_aside
from stellwerk.manifest import Manifest, ManifestEntry, safe_path

STD = "std"
BUILD = "build"
_OF_EXECUTOR = re.compile(r"user_logs/std_log_process_\d{1,4}\.txt|azureml-logs/65_job_prep\.txt")
"""Names beside ``logs/`` that an executor gives: one a process, and what it prepared."""
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@dataclass(frozen=True, slots=True)
class LogKey:
    """One log: a run's attempt and stream, or an environment's build."""

    owner: str
    attempt: int
    stream: str


@dataclass(frozen=True, slots=True)
class Log:
    """A log as it is stored.

    ``closed``: nothing will be added; ``stored``: it is a blob as well; ``local``: its file is
    still here. ``bytes`` are on the disk for certain.
    """

    key: LogKey
    path: str
    bytes: int = 0
    closed: bool = False
    sha256: str | None = None
    stored: bool = False
    local: bool = True


def checked_path(stream: str, path: str | None) -> str:
    """The path of a stream: given by its executor for files under ``./logs`` and its own logs."""
    if stream == STD:
        return STD_LOG
    if stream == BUILD:
        return BUILD_LOG
    try:
        checked = safe_path(path or "")
    except ValueError:
        checked = ""
    known = checked.startswith("logs/") or _OF_EXECUTOR.fullmatch(checked)
    return checked if known else f"logs/{stream}"


def shown_path(log: Log, latest: int) -> str:
    """The path in the run: logs of earlier attempts are put aside."""
    if log.key.stream == BUILD or log.key.attempt >= latest:
        return log.path
    return put_aside(log.path, log.key.attempt)


def archive(outputs: Iterable[ManifestEntry], logs: Iterable[ManifestEntry]) -> Manifest:
    """Every file of a run. A log keeps its name where an output claims the same place."""
    chosen: dict[str, ManifestEntry] = {}
    folders: set[str] = set()
    for entry in (*logs, *outputs):
        parents = _parents(entry.path)
        if entry.path in chosen or entry.path in folders or any(p in chosen for p in parents):
            continue
        chosen[entry.path] = entry
        folders.update(parents)
    return Manifest(entries=tuple(sorted(chosen.values(), key=lambda entry: entry.path)))


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
