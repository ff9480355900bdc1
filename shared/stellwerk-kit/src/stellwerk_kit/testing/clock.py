"""A clock that a test moves."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Starts at 2026-01-01 00:00 UTC, monotonic 1000 s."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """The wall time set so far."""
        return self._now

    def monotonic(self) -> float:
        """The monotonic time set so far."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both times on."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
