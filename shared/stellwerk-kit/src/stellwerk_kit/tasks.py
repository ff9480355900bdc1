"""Background tasks with an owner: none is forgotten, none fails unseen."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


class TaskOwner:
    """Holds tasks until they end; ``failed`` fires when one ends with an exception."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failed = asyncio.Event()
        self.failure: BaseException | None = None

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run ``coro`` in the background; an exception is logged and fires ``failed``."""
        task = asyncio.create_task(coro, name=name)  # noqa: TID251 - this is the owner
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def spawn_quiet(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Like :meth:`spawn` for a task whose caller awaits it and sees its exception itself."""
        task = asyncio.create_task(coro, name=name)  # noqa: TID251 - this is the owner
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error(
            "background task failed", action="task_failed", task=task.get_name(), exc_info=error
        )
        self.failure = self.failure or error
        self.failed.set()

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
