"""New runs as rows: all of a batch at once, since a sweep submits thousands."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Table, bindparam, insert, select, update
from sqlalchemy.engine import Connection

from stellwerk.events import RunSubmitted
from stellwerk_history import rows
from stellwerk_history.domain import Run
from stellwerk_history.tables import experiments, labels, latest, runs, specs
from stellwerk_kit.prepared import Prepared, Sized

# Statements are made once: building one costs more than running it.
_COUNT = Prepared(select(experiments.c.runs).where(experiments.c.name == bindparam("key")))
_MOVE = Prepared(update(experiments).where(experiments.c.name == bindparam("key")))
_BEGIN, _ADD, _ADD_SPEC = (Prepared(insert(table)) for table in (experiments, runs, specs))


def _early(table: Table) -> Sized:
    return Sized(lambda ids: select(table.c.run_id).where(table.c.run_id.in_(ids)))


_EARLY = {table.name: _early(table) for table in (labels, latest)}


@dataclass(slots=True)
class _Experiment:
    """How many runs it has; ``known`` once it has a row."""

    runs: int
    known: bool
    last_run_at: datetime | None = None


@dataclass(slots=True)
class Submissions:
    """The submissions of one batch; :meth:`write` is called once, with their runs."""

    conn: Connection
    _events: dict[str, RunSubmitted] = field(default_factory=dict)
    _experiments: dict[str, _Experiment] = field(default_factory=dict)

    def add(self, event: RunSubmitted, time: datetime) -> int:
        """Take one; returns its run's number in the experiment."""
        name = event.experiment
        if name not in self._experiments:
            count = _COUNT.scalar(self.conn, {"key": name})
            self._experiments[name] = _Experiment(int(count or 0), known=count is not None)
        experiment = self._experiments[name]
        experiment.runs += 1
        experiment.last_run_at = time
        self._events[event.run_id] = event
        return experiment.runs

    def write(self, new: dict[str, Run]) -> None:
        """Write runs, specs, labels and the experiments' counts."""
        if not new:
            return
        conn = self.conn
        _ADD.each(conn, [rows.fixed_values(run) | rows.run_values(run) for run in new.values()])
        wanted = [
            {"run_id": run_id, "spec": event.spec.model_dump_json(exclude_defaults=True)}
            for run_id, event in self._events.items()
        ]
        _ADD_SPEC.each(conn, wanted)
        for name, experiment in self._experiments.items():
            values = {"runs": experiment.runs, "last_run_at": experiment.last_run_at}
            if experiment.known:
                _MOVE.run(conn, {"key": name, **values})
            else:
                _BEGIN.run(conn, {"name": name, **values})
        self._place_what_came_before(new)
        self._write_labels(new)

    def _place_what_came_before(self, new: dict[str, Run]) -> None:
        """Labels and values that overtook the submission get their place in lists."""
        for table in (labels, latest):
            early: set[str] = set()
            for some in rows.slices(new):
                early |= {row.run_id for row in _EARLY[table.name].all(self.conn, some)}
            for run_id in early:
                place: dict[str, Any] = {"position": new[run_id].position}
                if table is latest:
                    place["experiment"] = new[run_id].experiment
                self.conn.execute(update(table).where(table.c.run_id == run_id).values(place))

    def _write_labels(self, new: dict[str, Run]) -> None:
        """Tags and properties of the specs; what the run itself said before stays."""
        present = rows.load_labels(self.conn, new)
        values = []
        for run_id, event in self._events.items():
            tags, properties = present.get(run_id, ({}, {}))
            for kind, given, known in (
                (rows.TAG, event.spec.tags, tags),
                (rows.PROPERTY, event.spec.properties, properties),
            ):
                values += [
                    {
                        "run_id": run_id,
                        "kind": kind,
                        "name": name,
                        "value": value,
                        "position": new[run_id].position,
                    }
                    for name, value in given.items()
                    if name not in known
                ]
        if values:
            self.conn.execute(insert(labels), values)
