"""Whether two runs came to the same: their metrics by value, their files by digest. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stellwerk.answers import Series
from stellwerk.api import RunFileView

LOG_FOLDERS = ("user_logs/", "azureml-logs/", "logs/")
"""Logs hold times and paths: they always differ and are not compared."""

_FILES = {"image", "artifact"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: digest by path, values by metric (an image's: its file's digest)."""

    files: Mapping[str, str | None]
    metrics: Mapping[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs; None: the run has none of it."""

    kind: Literal["file", "metric"]
    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side: how much was compared, and what differs."""

    run_id: str
    rerun_id: str
    files: int
    metrics: int
    differences: tuple[Difference, ...]

    @property
    def match(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def __str__(self) -> str:
        compared = f"{_count(self.files, 'file')} and {_count(self.metrics, 'metric')}"
        if self.match:
            return f"match: {compared} are the same"
        head = f"different: {_count(len(self.differences), 'difference')} among {compared}"
        return "\n".join([head, *(f"  {each}" for each in self.differences)])


def outcome(
    files: Iterable[RunFileView], series: Iterable[Series], output_files: Mapping[str, str | None]
) -> Outcome:
    """Of one run; ``output_files``: digest by path of the datasets that its outputs became."""
    digests = {each.path: each.sha256 for each in files}
    metrics: dict[str, list[Any]] = {}
    logged: set[str] = set()
    for each in series:
        values = metrics.setdefault(each.name, [])
        for value in each.values:
            if each.kind in _FILES and value in digests:
                # Their names hold the time, their content need not.
                logged.add(value)
                values.append(digests[value])
            else:
                values.append(value)
    kept = {
        path: digest
        for path, digest in digests.items()
        if path not in logged and not path.startswith(LOG_FOLDERS)
    }
    return Outcome({**kept, **output_files}, metrics)


def compare(run_id: str, before: Outcome, rerun_id: str, after: Outcome) -> Comparison:
    """All differences, files first, by name."""
    paths = sorted(before.files.keys() | after.files.keys())
    names = sorted(before.metrics.keys() | after.metrics.keys())
    found = [
        Difference("file", path, before.files.get(path), after.files.get(path))
        for path in paths
        if before.files.get(path) != after.files.get(path)
    ]
    found += [
        Difference("metric", name, before.metrics.get(name), after.metrics.get(name))
        for name in names
        if before.metrics.get(name) != after.metrics.get(name)
    ]
    return Comparison(run_id, rerun_id, len(paths), len(names), tuple(found))


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else value
        text = json.dumps(value)
        return text if len(text) <= 60 else text[:59] + "…"
    return str(value)[:12]


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
