"""Time, injected everywhere so that tests own it. The only home of the system's clocks."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for people, monotonic time for deadlines."""

    def now(self) -> datetime:
        """Aware UTC time; informational, may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; the same for all processes of one machine."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Aware UTC time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC in seconds."""
        return time.monotonic()
