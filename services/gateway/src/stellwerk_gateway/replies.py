"""Answers of other services that neither ``stellwerk.api`` nor ``stellwerk.answers`` models."""

from stellwerk.answers import FileList
from stellwerk.api import QueueView, RunEventView, View


class QueueReply(View):
    """Scheduler's ``queue-get``: None for a run that does not wait."""

    queue: QueueView | None = None


class EventsReply(View):
    """History's ``run-events``; ``terminal`` when no more can come."""

    events: tuple[RunEventView, ...] = ()
    terminal: bool = False


class SeenReply(View):
    """History's ``records-seen``."""

    seen: bool


class AncestorsReply(View):
    """History's ``run-ancestors``: the parent first."""

    run_ids: tuple[str, ...] = ()


class FilesReply(FileList):
    """History's ``run-files``; with ``next`` there are more: pass it as ``after``."""

    next: str | None = None


class UnregisteredView(View):
    """How many versions of a dataset lost their name."""

    versions: int
