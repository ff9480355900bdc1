"""How a run ended: collects the facts and turns them into the exit record."""

from __future__ import annotations

import os
import time

from stellwerk_shim import signals, tree


class Outcome:
    """Facts about one attempt. The first reason given for a stop stands."""

    def __init__(self, launch: dict[str, object]) -> None:
        self._launch = launch
        self._oom_kills = tree.oom_kills()
        self._oom = False
        self._reason: str | None = None
        self._message: str | None = None
        self._exit_code: int | None = None
        self._signal: int | None = None
        self._notes: list[str] = []
        self.killed = False
        self.started_at = time.time()
        self.started_mono = time.monotonic()

    @property
    def stopping(self) -> bool:
        """True once somebody asked for the run's end."""
        return self._reason is not None

    def stop(self, reason: str, message: str | None) -> None:
        """Note why the run is being stopped."""
        if self._reason is None:
            self._reason, self._message = reason, message

    def launch_failed(self, message: str) -> None:
        """Note that the run's program never started."""
        self._reason, self._message = "launch-failed", message

    def note(self, text: str) -> None:
        """Add a remark to the message."""
        self._notes.append(text)

    def ended(self, status: int, own_oom_kills: int = 0) -> None:
        """Take the wait status of the first process.

        `own_oom_kills`: how many of the run's processes were ended for its own limit of memory.
        """
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            self._exit_code = code
        else:
            self._signal = -code
        if self._reason is None:
            self._explain(own_oom_kills)

    def record(
        self, log: dict[str, object], used: tuple[float, int], peak_bytes: int
    ) -> dict[str, object]:
        """Return the exit record.

        `log` holds sizes and digest, `used` CPU seconds and the largest process in bytes.
        """
        message = "; ".join(part for part in (self._message, *self._notes) if part)
        return {
            "run_id": self._launch.get("run_id"),
            "attempt": self._launch.get("attempt"),
            "exit_code": self._exit_code,
            "signal": self._signal,
            "oom": self._oom or self._reason == "oom",
            "reason": self._reason,
            "message": message[:2000] or None,
            "started_at": self.started_at,
            "ended_at": time.time(),
            "duration_s": time.monotonic() - self.started_mono,
            "cpu_s": used[0],
            "peak_rss_bytes": max(used[1], peak_bytes),
            **log,
        }

    def _explain(self, own_oom_kills: int) -> None:
        """Nobody asked for this end: say what the process did."""
        self._oom = own_oom_kills > 0
        limit = self._launch.get("memory_limit_bytes")
        why = f"the run needed more memory than its limit of {limit} bytes"
        what = "; ask for more memory or use less"
        if limit is None:  # a group above its own, or the machine
            why, what = "this machine ran out of memory", ""
        if self._oom and self._signal == signals.KILL:
            self._reason = "oom"
            self._message = f"{why} and the kernel ended it{what}"
            return
        if self._oom:
            self.note(f"{why} and the kernel ended {own_oom_kills} of its processes{what}")
        if self._signal is None:
            self._reason = "exited"
            if self._exit_code:
                self._message = f"the script exited with status {self._exit_code}"
        elif self._signal == signals.KILL and tree.oom_kills() > self._oom_kills:
            self._reason = "oom"
            self._message = "the kernel ended the script because this machine ran out of memory"
        else:
            self._reason = "signaled"
            self._message = f"the script was ended by {_name(self._signal)}"


def _name(number: int) -> str:
    import signal  # its enumerations are large, and most runs end without one

    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"
