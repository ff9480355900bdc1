"""What an event makes of a run as users see it. Pure.

:func:`apply` folds one event into a :class:`Run` and says what its status stream shows. Status
is decided by ``stellwerk.runstate`` alone; an event that may not come raises :class:`Skip`.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from stellwerk.api import ErrorView, RunView
from stellwerk.events import (
    ArchiveFailed,
    AttemptProgressed,
    DatasetProduced,
    DatasetReady,
    Envelope,
    ExitSummary,
    ImageBuildStarted,
    ImageFailed,
    ImageInfo,
    ImageReady,
    ProducedDataset,
    ResolvedInput,
    RunArchived,
    RunAssigned,
    RunCanceled,
    RunCancelRequested,
    RunCompleted,
    RunFailed,
    RunFinalizing,
    RunStarted,
    RunSubmitted,
    StartInfo,
)
from stellwerk.runspec import RunSpec
from stellwerk.runstate import TERMINAL, TRANSITIONS, IllegalTransitionError, RunState, evolve
from stellwerk.runstate import RunStatus as S
from stellwerk_history.narration import brief, tell

MAX_WARNINGS = 50
NO_DURATION = -1.0

PHASES = {
    S.NOT_STARTED: "preparing",
    S.PREPARING: "preparing",
    S.QUEUED: "scaling",
    S.PROVISIONING: "scaling",
    S.STARTING: "starting",
    S.RUNNING: "running",
    S.FINALIZING: "post_processing",
}
"""A state's phase. Waiting for a slot is scaling: both end when a node takes the run."""


class Skip(Exception):  # noqa: N818 - an outcome, not an error
    """The event changes nothing: it was seen before, or may not come now."""


class Detail(BaseModel):
    """What is shown of a run and never searched for."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["script", "interactive"] = "script"
    started_at: datetime | None = None
    ended_at: datetime | None = None
    node_id: str | None = None
    phases: dict[str, float] = {}
    phase: str | None = None
    phase_since: datetime | None = None
    error: ErrorView | None = None
    warnings: tuple[str, ...] = ()
    image: ImageInfo | None = None
    build_log: tuple[str, int] | None = None
    inputs: dict[str, ResolvedInput] = {}
    outputs: dict[str, ProducedDataset] = {}
    start: StartInfo | None = None
    exit: ExitSummary | None = None
    outputs_manifest: str | None = None
    archive_manifest: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as far as its events tell.

    ``sequence`` counts the entries of its status stream, ``owner_sequence`` is the scheduler's
    own last number, ``position`` the submission's place in the event stream.
    """

    state: RunState
    position: int
    experiment: str
    number: int
    target: str
    submitted_at: datetime
    submitted_by: str | None = None
    parent_run_id: str | None = None
    display_name: str | None = None
    sequence: int = 0
    owner_sequence: int = 0
    detail: Detail = field(default_factory=Detail)

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.state.state in TERMINAL


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a run's status stream, as it is stored."""

    run_id: str
    sequence: int
    event_id: str
    type: str
    time: datetime
    status: str
    attempt: int
    message: str
    phases: dict[str, float]
    data: dict[str, Any]


def concerns(envelope: Envelope) -> tuple[str, ...]:
    """Ids of the runs an event is about."""
    event = envelope.event
    if isinstance(event, ImageBuildStarted | ImageReady | ImageFailed):
        return tuple(dict.fromkeys(event.run_ids))
    run_id = getattr(event, "run_id", None)
    return (run_id,) if isinstance(run_id, str) else ()


def submit(envelope: Envelope, position: int, number: int) -> tuple[Run, Entry]:
    """A new run from its RunSubmitted. ``number`` counts the runs of its experiment."""
    event = envelope.event
    if not isinstance(event, RunSubmitted):
        raise Skip(f"{type(event).__name__} of an unknown run")
    run = Run(
        state=RunState(run_id=event.run_id),
        position=position,
        experiment=event.experiment,
        number=number,
        target=event.spec.target,
        submitted_at=envelope.time,
        submitted_by=event.submitted_by,
        parent_run_id=event.parent_run_id,
        display_name=event.spec.display_name,
        detail=Detail(kind=event.spec.kind, phase=PHASES[S.NOT_STARTED], phase_since=envelope.time),
    )
    return _entered(run, envelope)


def apply(run: Run, envelope: Envelope) -> tuple[Run, Entry]:
    """``run`` after an event, and the entry it makes. Raises Skip."""
    event = envelope.event
    if isinstance(event, RunSubmitted):
        raise Skip("submitted before")
    moves = type(event) in TRANSITIONS
    if moves and envelope.sequence is not None and envelope.sequence <= run.owner_sequence:
        raise Skip("numbered like an earlier event")
    state = run.state
    if moves or isinstance(event, RunCancelRequested):
        try:
            state = evolve(run.state, event)
        except IllegalTransitionError as error:
            raise Skip(str(error)) from error
    detail = _phase(run.detail, state, envelope.time).model_copy(
        update=_learned(run, state, envelope)
    )
    number = (envelope.sequence if moves else None) or run.owner_sequence
    return _entered(replace(run, state=state, detail=detail, owner_sequence=number), envelope)


def phases_at(detail: Detail, time: datetime) -> dict[str, float]:
    """Seconds of each phase up to ``time``, the present one still growing."""
    seconds = dict(detail.phases)
    if detail.phase is not None and detail.phase_since is not None:
        passed = max(0.0, (time - detail.phase_since).total_seconds())
        seconds[detail.phase] = seconds.get(detail.phase, 0.0) + passed
    return {name: round(value, 6) for name, value in seconds.items()}


def duration_key(detail: Detail) -> float:
    """Seconds from the first start to the end, for ordering; -1 while there are none."""
    if detail.started_at is None or detail.ended_at is None:
        return NO_DURATION
    return max(0.0, (detail.ended_at - detail.started_at).total_seconds())


def view(
    run: Run,
    now: datetime,
    tags: dict[str, str | None],
    properties: dict[str, str | None],
    spec: RunSpec | None = None,
) -> RunView:
    """The run as the API shows it."""
    shown = {"phases", "phase", "phase_since", "build_log"}
    detail = {name: getattr(run.detail, name) for name in Detail.model_fields if name not in shown}
    return RunView(
        run_id=run.state.run_id,
        experiment=run.experiment,
        status=str(run.state.status),
        sequence=run.sequence,
        number=run.number,
        display_name=run.display_name,
        submitted_by=run.submitted_by,
        parent_run_id=run.parent_run_id,
        target=run.target,
        attempt=run.state.attempt,
        submitted_at=run.submitted_at,
        phases=phases_at(run.detail, now),
        tags=tags,
        properties=properties,
        spec=spec,
        **detail,
    )


def _entered(run: Run, envelope: Envelope) -> tuple[Run, Entry]:
    run = replace(run, sequence=run.sequence + 1)
    entry = Entry(
        run_id=run.state.run_id,
        sequence=run.sequence,
        event_id=envelope.id,
        type=type(envelope.event).__name__,
        time=envelope.time,
        status=str(run.state.status),
        attempt=run.state.attempt,
        message=tell(envelope.event),
        phases=phases_at(run.detail, envelope.time),
        data=brief(envelope.event),
    )
    return run, entry


def _phase(detail: Detail, state: RunState, time: datetime) -> Detail:
    phase = PHASES.get(state.state)
    if phase == detail.phase:
        return detail
    settled = phases_at(detail, time)
    return detail.model_copy(
        update={
            "phases": settled,
            "phase": phase,
            "phase_since": max(time, detail.phase_since or time) if phase else None,
        }
    )


def _learned(run: Run, state: RunState, envelope: Envelope) -> dict[str, Any]:
    """Fields of the detail that an event sets."""
    event, old = envelope.event, run.detail
    match event:
        case ImageBuildStarted() | ImageFailed():
            return {"build_log": (event.env_id, event.build)}
        case ImageReady():
            log = {} if event.cached else {"build_log": (event.env_id, event.build)}
            return {"image": event.image, "warnings": _warned(old, event.image.warnings), **log}
        case DatasetReady():
            return {"inputs": event.inputs, "warnings": _warned(old, event.warnings)}
        case DatasetProduced():
            return {"outputs": event.outputs, "warnings": _warned(old, event.warnings)}
        case RunAssigned():
            warnings = _warned(old, event.image.warnings)
            placed = {"node_id": event.node_id, "inputs": event.inputs, "image": event.image}
            return {**placed, "warnings": warnings, "start": None}
        case RunStarted() | AttemptProgressed():
            return _under_way(old, state, event, envelope.time)
        case RunFinalizing():
            return _ended(old, event.exit)
        case RunArchived():
            return {"archive_manifest": event.manifest} if event.attempt == state.attempt else {}
        case ArchiveFailed():
            return {"warnings": _warned(old, (event.message,))}
        case RunCompleted() | RunFailed() | RunCanceled():
            known = {} if old.exit else _ended(old, event.exit)
            error = None
            if isinstance(event, RunFailed):
                error = ErrorView(code=event.code, message=event.message)
            manifest = event.outputs_manifest or old.outputs_manifest
            over = {"ended_at": envelope.time, "error": error, "outputs_manifest": manifest}
            return {**known, **over}
        case _:
            return {}


def _under_way(
    old: Detail, state: RunState, event: RunStarted | AttemptProgressed, time: datetime
) -> dict[str, Any]:
    if isinstance(event, RunStarted):
        return {"started_at": old.started_at or time, "start": _merged(event.start, old.start)}
    if event.attempt != state.attempt:
        return {}
    further = StartInfo(timings_s=event.timings_s, cold_reason=event.cold_reason)
    return {"start": _merged(old.start, further)}


def _merged(start: StartInfo | None, further: StartInfo | None) -> StartInfo | None:
    """``start`` with what ``further`` knows more, which may have been heard before it."""
    if start is None or further is None:
        return start or further
    known: dict[str, Any] = {"timings_s": {**start.timings_s, **further.timings_s}}
    if further.cold_reason is not None:
        known |= {"warm": False, "cold_reason": further.cold_reason}
    return start.model_copy(update=known)


def _ended(old: Detail, summary: ExitSummary | None) -> dict[str, Any]:
    if summary is None:
        return {}
    skipped = tuple(f"not stored: {reason}" for reason in summary.outputs_skipped)
    return {
        "exit": summary,
        "outputs_manifest": summary.outputs_manifest,
        "warnings": _warned(old, skipped),
    }


def _warned(old: Detail, more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*old.warnings, *more)))[:MAX_WARNINGS]
