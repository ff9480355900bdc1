"""The report on a folder: for each file what it uses, and a summary."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stellwerk.migration import sources, specs, usage
from stellwerk.migration.stub import Mark, Status, table
from stellwerk.migration.usage import Use

ORDER: tuple[Status, ...] = ("not supported", "substituted", "supported")


@dataclass(frozen=True, slots=True)
class Row:
    """One symbol of a file: what becomes of it, and where it stands."""

    symbol: str
    status: Status
    note: str
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileReport:
    """A file; one without rows has nothing of the v1 SDK in it."""

    path: str
    rows: tuple[Row, ...]


@dataclass
class Report:
    """All files of a folder."""

    files: list[FileReport] = field(default_factory=list)

    @property
    def counts(self) -> dict[Status, int]:
        """Different symbols by status; a symbol has its worst one."""
        worst: dict[str, Status] = {}
        for row in (row for file in self.files for row in file.rows):
            known = worst.get(row.symbol, "supported")
            worst[row.symbol] = min(known, row.status, key=ORDER.index)
        return {status: sum(each == status for each in worst.values()) for status in ORDER}

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "summary": {"files": len(self.files), **self.counts},
            "files": [
                {
                    "path": file.path,
                    "symbols": [
                        {
                            "symbol": r.symbol,
                            "status": r.status,
                            "note": r.note,
                            "where": [*r.where],
                        }
                        for r in file.rows
                    ],
                }
                for file in self.files
            ],
        }


def check(folder: Path) -> Report:
    """Read everything below ``folder`` (or the one file). Nothing is run or changed."""
    report = Report()
    for source in sources.find(folder):
        rows = rows_of(_uses(source))
        if rows or source.trees:
            report.files.append(FileReport(source.path, rows))
    return report


def _uses(source: sources.Source) -> Iterable[Use]:
    for where, why in source.broken:
        yield Use("syntax", Mark("not supported", f"cannot be read: {why}"), where)
    if source.trees:
        found = usage.of(source, table())
        yield from found.uses
        yield from specs.of_packages(found.packages)
        yield from specs.of_curated(found.curated)
    elif not source.broken:
        yield from specs.of_file(source.path, source.text)
    yield from specs.of_addresses(source.text)


def rows_of(uses: Iterable[Use]) -> tuple[Row, ...]:
    """One row for each symbol and mark, worst first, otherwise in order."""
    grouped: dict[tuple[str, Mark], dict[str, None]] = {}
    for use in uses:
        grouped.setdefault((use.symbol, use.mark), {})[use.where] = None
    marked = {symbol for symbol, mark in grouped if mark.status != "supported"}
    rows = [
        Row(symbol, mark.status, mark.note, tuple(where for where in places if where))
        for (symbol, mark), places in grouped.items()
        if mark.status != "supported" or symbol not in marked
    ]
    return tuple(sorted(rows, key=lambda row: ORDER.index(row.status)))
