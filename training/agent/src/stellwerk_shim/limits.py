"""When a run has to end by itself: its lease, its longest duration, its memory."""

from __future__ import annotations

import os

from stellwerk_shim import cgroup, files, tree

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = float("inf")
SAMPLE_S = 0.5
LEASE_GRACE_S = 10.0


class Limits:
    """Deadlines on the monotonic clock. `deadline` is when `check` wants to be called next."""

    def __init__(self, folder: str, launch: dict[str, object], started: float) -> None:
        self._lease_file = os.path.join(folder, "lease")
        self._duration = _number(launch.get("max_duration_s"))
        self._end = NEVER if self._duration is None else started + self._duration
        self._memory = _number(launch.get("memory_limit_bytes"))
        by_kernel = cgroup.limits_memory(launch.get("cgroups") or [])  # type: ignore[arg-type]
        self._next_sample = NEVER if self._memory is None or by_kernel else started
        lease = _number(launch.get("lease"))
        self._lease = NEVER if lease is None else lease
        self.read_lease()
        self.peak_bytes = 0

    @property
    def deadline(self) -> float:
        """Earliest moment at which anything here can be due."""
        return min(self._lease, self._end, self._next_sample)

    def read_lease(self) -> None:
        """Take the deadline from the lease file; what is not there or torn changes nothing."""
        try:
            text = files.read(self._lease_file)
            self._lease = NEVER if text == b"none" else float(text)
        except (OSError, ValueError):
            return

    def check(self, now: float, processes: Callable[[], list[int]]) -> tuple[str, str] | None:
        """Return (reason, message) if the run, which has these `processes`, must end now."""
        if now >= self._lease:
            self.read_lease()
            if now >= self._lease:
                self._lease = NEVER
                return "lease-expired", "this node lost contact and its lease on the run ran out"
        if now >= self._end:
            self._end = NEVER
            return (
                "timeout",
                f"the run reached its longest allowed duration of {self._duration:g} s",
            )
        if self._memory is not None and now >= self._next_sample:
            self._next_sample = now + SAMPLE_S
            return self._check_memory(self._memory, processes())
        return None

    def _check_memory(self, limit: float, processes: list[int]) -> tuple[str, str] | None:
        used = tree.memory_bytes(processes, int(limit))
        self.peak_bytes = max(self.peak_bytes, used)
        if used <= limit:
            return None
        self._next_sample = NEVER
        return "oom", (
            f"the run used {used} bytes of memory, more than its limit of {int(limit)};"
            " ask for more memory or use less"
        )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
