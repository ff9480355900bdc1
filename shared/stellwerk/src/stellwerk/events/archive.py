"""Facts of the archive aggregate: post-processing. Owner: history."""

from stellwerk.events.attempt import LogClosure
from stellwerk.events.base import Event, event


@event(aggregate="archive", verb="archived", owner="history", key="run_id")
class RunArchived(Event):
    """Outputs are verified, the log is closed: ``manifest`` lists every file of the run."""

    run_id: str
    attempt: int
    manifest: str
    files: int
    bytes: int
    logs: tuple[LogClosure, ...] = ()

    def discriminator(self) -> str:
        """The attempt."""
        return str(self.attempt)


@event(aggregate="archive", verb="failed", owner="history", key="run_id")
class ArchiveFailed(Event):
    """Outputs or log cannot be verified, for good."""

    run_id: str
    attempt: int
    code: str
    message: str

    def discriminator(self) -> str:
        """The attempt."""
        return str(self.attempt)
