"""What an event says to people and to programs that follow a run. Pure."""

from typing import Any

from stellwerk import events as e

MAX_MESSAGE = 4000
MAX_DATA_TEXT = 1000

_LEFT_OUT = frozenset(
    {
        "run_id",
        "run_ids",
        "experiment",
        "workspace",
        "spec",
        "image",
        "inputs",
        "outputs",
        "environment",
        "exit",
        "logs",
        "message",
    }
)
_OF_EXIT = ("reason", "exit_code", "signal", "oom", "duration_s", "peak_memory_bytes")


def tell(event: e.Event) -> str:
    """One sentence, empty where the status says it all."""
    return _sentence(event)[:MAX_MESSAGE]


def brief(event: e.Event) -> dict[str, Any]:
    """The event's data without what is large or shown elsewhere in the run."""
    content = event.model_dump(mode="json", by_alias=True, exclude=set(_LEFT_OUT))
    data = {
        name: value[:MAX_DATA_TEXT] if isinstance(value, str) else value
        for name, value in content.items()
    }
    summary = getattr(event, "exit", None)
    if isinstance(summary, e.ExitSummary):
        data["exit"] = {name: getattr(summary, name) for name in _OF_EXIT}
    return data


def _sentence(event: e.Event) -> str:
    match event:
        case e.ImageBuildStarted() | e.ImageReady() | e.DatasetReady():
            return _prepared(event)
        case e.DatasetProduced():
            kept = sum(each.dataset_id is not None for each in event.outputs.values())
            return f"{kept} of {len(event.outputs)} outputs are datasets now."
        case e.RunAssigned():
            return f"Attempt {event.attempt} was given to node {event.node_id}."
        case e.RunRetrying():
            return f"Attempt {event.attempt} follows in {event.delay_s:.0f} s: {event.message}"
        case e.AttemptLost():
            return f"Node {event.node_id} does not respond; attempt {event.attempt} is given up."
        case e.RunStopRequested():
            return f"Attempt {event.attempt} is told to stop ({event.reason})."
        case e.AttemptProgressed() | e.AttemptExited():
            return _progress(event) if isinstance(event, e.AttemptProgressed) else _exit(event.exit)
        case e.RunCancelRequested():
            by = f" by {event.requested_by}" if event.requested_by else ""
            return f"Cancellation was requested{by}. {event.reason}".strip()
        case e.RunEndReported():
            by = f" by {event.reported_by}" if event.reported_by else ""
            return f"{event.outcome}: reported{by}. {event.message}".strip()
        case e.RunArchived():
            return f"{event.files} files ({event.bytes} bytes) are verified and stored."
        case e.ModelRegistered():
            return f"Registered as model {event.name}, version {event.version}."
        case _:
            return str(getattr(event, "message", ""))


def _prepared(event: e.ImageBuildStarted | e.ImageReady | e.DatasetReady) -> str:
    if isinstance(event, e.ImageBuildStarted):
        return f"Building environment {event.env_id[:12]}."
    if isinstance(event, e.DatasetReady):
        files = sum(each.files for each in event.inputs.values())
        return f"The inputs are ready: {files} files." if event.inputs else ""
    if event.cached:
        return "The environment is ready (it was built before)."
    return f"The environment is ready after {event.seconds:.1f} s."


def _progress(event: e.AttemptProgressed) -> str:
    timings_s = event.timings_s
    words = {"imports": "The imports took", "first_step": "the first training step came after"}
    told = [f"{words[name]} {timings_s[name]:.2f} s" for name in words if name in timings_s]
    words_of_steps = (", ".join(told) + ".").capitalize() if told else ""
    if event.cold_reason is None:
        return words_of_steps
    return f"It began again in a new Python: {event.cold_reason}. {words_of_steps}".strip()


def _exit(summary: e.ExitSummary) -> str:
    if summary.message:
        return summary.message
    if summary.signal is not None:
        return f"The process was ended by signal {summary.signal} ({summary.reason})."
    if summary.exit_code is not None:
        return f"The process ended with status {summary.exit_code}."
    return f"The attempt ended: {summary.reason}."
