"""The moment a run's process is started: in a warm one where that may be, cold where not."""

import asyncio
from dataclasses import dataclass, replace

from stellwerk.events import RunAssigned
from stellwerk_gpu_executor.domain import Places
from stellwerk_gpu_executor.launching import (
    NOT_STARTED,
    Handle,
    Launcher,
    LaunchRequest,
    NotWarmError,
    WallsError,
)
from stellwerk_gpu_executor.prepare import PrepareError
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Choice
from stellwerk_gpu_executor.warm_process import ColdError
from stellwerk_gpu_executor.warm_rules import Recipe
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.tasks import TaskOwner

TRIES = 2
"""So often a run that must begin warm is tried: its warm process may go away in between."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Starts processes of runs on this node."""

    warm: WarmPool
    launcher: Launcher
    tasks: TaskOwner

    async def __call__(
        self, assigned: RunAssigned, request: LaunchRequest, places: Places, stopped: asyncio.Event
    ) -> tuple[Handle | None, Recipe | None]:
        """Start one; its handle, and the warm process that serves runs like it.

        No handle where ``stopped`` came before. Raises PrepareError for a run that must begin warm
        and cannot, or whose sandbox cannot be made.
        """
        request = replace(request, must_be_warm=assigned.spec.warm == "require")
        for _ in range(TRIES):
            try:
                choice = await self._choice(assigned, request, places, stopped)
            except ColdError as error:
                raise _refused(str(error)) from error
            if choice is None:
                return None, None
            failpoint("gpu-executor.before_launch")
            try:
                handle = await self.launcher.start(
                    replace(request, warm=choice.server, cold_reason=choice.reason)
                )
            except NotWarmError:
                handle = None
            except WallsError as error:
                why = f"its sandbox cannot be made: {error}"
                raise PrepareError("launch-failed", why) from error
            finally:
                self.warm.release(choice)
            failpoint("gpu-executor.after_launch")
            launch = {} if handle is None else handle.attempt.read_launch() or {}
            failed = handle is None or launch.get("cold_reason") == NOT_STARTED
            if choice.server and choice.recipe and failed:
                self.warm.broken(choice.recipe, choice.server)
            if handle is not None:
                return handle, choice.recipe
        raise _refused(f"{TRIES} warm processes did not start it")

    async def _choice(
        self, assigned: RunAssigned, request: LaunchRequest, places: Places, stopped: asyncio.Event
    ) -> Choice | None:
        """How it begins, None when it was stopped first: its turn may be long in coming."""
        choose = self.warm.choose(assigned, str(request.python), request.env, places)
        if not request.must_be_warm:
            return await choose  # at once
        choosing = self.tasks.spawn_quiet(choose, "choose")
        stopping = self.tasks.spawn_quiet(stopped.wait(), "stopped")
        try:
            await asyncio.wait({choosing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return choosing.result() if choosing.done() else None
        finally:
            choosing.cancel()
            stopping.cancel()


def _refused(reason: str) -> PrepareError:
    return PrepareError(
        "launch-failed",
        f"warm='require' was asked for, and it cannot begin warm: {reason}. Change that "
        "(docs/howto/warm-starts.md lists the reasons and what to do), or ask for warm='auto', "
        "with which it begins cold",
    )
