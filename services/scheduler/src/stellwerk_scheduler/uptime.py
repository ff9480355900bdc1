"""Service seconds: the time in which the scheduler was there to be told something.

They go on only while the process runs, is scheduled by its machine and reaches the broker. All
deadlines and leases are in service seconds, so an outage of the scheduler or of the broker, a
suspended machine and a wrong wall clock make none of them pass.
"""

from collections.abc import Callable

from stellwerk_kit.clock import Clock


class Uptime:
    """Counts on from ``elapsed``. Must be asked at least every ``longest_step_s`` seconds."""

    def __init__(
        self, clock: Clock, reachable: Callable[[], bool], elapsed: float, longest_step_s: float
    ) -> None:
        self._clock, self._reachable = clock, reachable
        self._longest = longest_step_s
        self._elapsed, self._seen = elapsed, clock.monotonic()
        self._was_reachable = True
        self.outages = 0
        """How often it stood still and went on again so far."""

    def now(self) -> float:
        """Service seconds since the scheduler's store was made."""
        seen = self._clock.monotonic()
        step, self._seen = seen - self._seen, seen
        reachable = self._reachable()
        if reachable and self._was_reachable:
            self._elapsed += min(step, self._longest)
        if reachable and (not self._was_reachable or step > self._longest):
            self.outages += 1
        self._was_reachable = reachable
        return self._elapsed
