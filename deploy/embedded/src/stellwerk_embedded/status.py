"""How the processes are: what the supervisor tells, and whether each answers right now."""

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stellwerk.sizes import size_text
from stellwerk_embedded import processes, state
from stellwerk_embedded.layout import Layout
from stellwerk_embedded.probes import Probe, problem
from stellwerk_embedded.processes import TOPOLOGY

HEADS = ("PROCESS", "STATE", "PID", "PORT", "RESTARTS", "MEMORY")


@dataclass(frozen=True, slots=True)
class Row:
    """One process. ``memory_bytes`` is what only it uses plus its share of what it shares."""

    name: str
    state: str
    pid: int | None
    port: int | None
    restarts: int
    memory_bytes: int
    message: str

    def cells(self) -> list[str]:
        """As text, in the order of :data:`HEADS`."""
        memory = size_text(self.memory_bytes) if self.pid else "-"
        numbers = [str(number) if number else "-" for number in (self.pid, self.port)]
        return [self.name, self.state, *numbers, str(self.restarts), memory]


@dataclass(frozen=True, slots=True)
class Status:
    """The whole platform."""

    home: Path
    running: bool
    rows: tuple[Row, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether everything answers."""
        return self.running and all(row.state in {"ready", "done"} for row in self.rows)

    def content(self) -> dict[str, Any]:
        """For programs."""
        return {
            "home": str(self.home),
            "running": self.running,
            "ready": self.ready,
            "memory_bytes": sum(row.memory_bytes for row in self.rows),
            "processes": [asdict(row) for row in self.rows],
        }


def look(layout: Layout) -> Status:
    """Ask the supervisor's file, and each process that claims to be ready."""
    content = state.read(layout)
    if content is None:
        return Status(layout.home, running=state.is_held(layout))
    probes = {spec.name: spec.probe for spec in processes.specs(layout, content["ports"])}
    problems = asyncio.run(_ask_all(probes))
    rows = [_row(name, entry, problems.get(name)) for name, entry in content["processes"].items()]
    pid = content["pid"]
    rows.append(Row("supervisor", "ready", pid, None, 0, memory(pid), ""))
    return Status(layout.home, running=True, rows=tuple(row for row in rows if _of_interest(row)))


def memory(pid: int | None) -> int:
    """Proportional memory of a process in bytes; 0 when the system does not tell."""
    if pid is None:
        return 0
    for file, field in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0


def _row(name: str, entry: dict[str, Any], found: str | None) -> Row:
    said, message = entry["state"], entry["message"]
    if said == "ready" and found is not None:
        said, message = "unready", found
    return Row(
        name, said, entry["pid"], entry["port"], entry["restarts"], memory(entry["pid"]), message
    )


def _of_interest(row: Row) -> bool:
    """A job that is done is no news."""
    return row.name != TOPOLOGY or row.state != "done"


async def _ask_all(probes: dict[str, Probe | None]) -> dict[str, str | None]:
    asked = {name: probe for name, probe in probes.items() if probe is not None}
    answers = await asyncio.gather(*(problem(probe) for probe in asked.values()))
    return dict(zip(asked, answers, strict=True))
