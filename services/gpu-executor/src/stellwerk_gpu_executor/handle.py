"""A started attempt as the executor sees it: end, stop, lease."""

import asyncio
import os
import signal

from stellwerk_gpu_executor.attempt_dir import AttemptDir, ExitRecord


class ProcessHandle:
    """An attempt under a supervisor process; see launching.Handle."""

    def __init__(self, attempt: AttemptDir, activity: asyncio.Event, pidfd: int | None) -> None:
        self.attempt = attempt
        self.activity = activity
        self._pidfd = pidfd
        self._lease = attempt.read_lease()
        self._ended: asyncio.Future[ExitRecord] = asyncio.get_running_loop().create_future()

    async def wait(self) -> ExitRecord:
        """Wait for the end."""
        return await asyncio.shield(self._ended)

    def alive(self) -> bool:
        """Whether the attempt has not ended yet."""
        return not self._ended.done()

    def exit_record(self) -> ExitRecord | None:
        """Return how it ended, None while it has not."""
        return self._ended.result() if self._ended.done() else None

    def stop(self, reason: str, grace_s: float | None = None, message: str | None = None) -> None:
        """Ask for the end."""
        if self._pidfd is not None:
            self.attempt.write_stop(reason, grace_s, message)
            self._signal(signal.SIGTERM)

    def renew(self, deadline_mono: float | None) -> None:
        """Let the run live until that monotonic time; after its end its folder is left alone."""
        if self._ended.done() or deadline_mono == self._lease:
            return
        before, self._lease = self._lease, deadline_mono
        self.attempt.write_lease(deadline_mono)
        # The supervisor looks again when the deadline it knows passes; an earlier one it is told.
        if deadline_mono is not None and (before is None or deadline_mono < before):
            self._signal(signal.SIGHUP)

    def finish(self, record: ExitRecord) -> None:
        """Publish the end."""
        self._ended.set_result(record)
        self.activity.set()

    def release(self) -> None:
        """Forget the process."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is not None:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return
