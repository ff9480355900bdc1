"""Reads web files in the background: one read per address, however many wait for it.

What is pending lies in the store, so a read that a crash interrupted begins again. A read that
fails for good answers those who wait; when the object store or the disk fails instead, the
address stays pending and the next sweep tries again.
"""

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from stellwerk.errors import UserError
from stellwerk.ids import derived_id
from stellwerk_dataset.egress import Fetched, FetchError, Guard
from stellwerk_dataset.rewrites import Copy, Rewrites
from stellwerk_dataset.waiting import Blob, WaitingStore
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.objects import ObjectStore

PARALLEL = 4

log = structlog.get_logger()

Outcome = UserError | None
Spawn = Callable[[str, Coroutine[Any, Any, Outcome]], "asyncio.Task[Outcome]"]


class Fetcher:
    """Joins readers per address. ``retry_delays_s``: the pauses after transient failures."""

    def __init__(
        self,
        guard: Guard,
        objects: ObjectStore,
        store: WaitingStore,
        folder: Path,
        spawn: Spawn,
        retry_delays_s: tuple[float, ...],
        rewrites: Rewrites,
    ) -> None:
        self._guard, self._objects, self._store = guard, objects, store
        self._folder, self._spawn, self._delays = folder, spawn, retry_delays_s
        self._rewrites = rewrites
        self._slots = asyncio.Semaphore(PARALLEL)
        self._running: dict[str, asyncio.Task[Outcome]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            left.unlink()

    def start(self, url: str) -> "asyncio.Task[Outcome]":
        """Begin to read ``url``, or join the read under way; its result is why it failed."""
        task = self._running.get(url)
        if task is None or task.done():
            task = self._spawn("fetch", self._work(url))
            self._running[url] = task
            task.add_done_callback(lambda done: self._ended(url, done))
        return task

    async def wait(self, urls: Iterable[str], timeout_s: float) -> None:
        """Read ``urls`` and wait up to ``timeout_s`` seconds; raises the first failure."""
        tasks = [self.start(url) for url in urls]
        if not tasks:
            return
        done, _ = await asyncio.wait(tasks, timeout=timeout_s)
        for task in tasks:
            if task in done and not task.cancelled() and (error := task.result()) is not None:
                raise error

    def _ended(self, url: str, task: "asyncio.Task[Outcome]") -> None:
        if self._running.get(url) is task:
            del self._running[url]

    async def _work(self, url: str) -> Outcome:
        path = self._folder / derived_id("url", url)
        try:
            while await self._store.is_pending(url):
                await self._read(url, path)
        except UserError as error:
            log.info("web file not read", action="fetch_failed", code=error.code)
            await self._store.fail(url, error)
            return error
        except Exception:  # the sweep tries again; this service must go on
            log.exception("web file stays pending", action="fetch_broken")
        finally:
            path.unlink(missing_ok=True)
        return None

    async def _read(self, url: str, path: Path) -> None:
        if await self._store.is_unread(url):
            async with self._slots:
                fetched = await self._fetch(url, path)
                digest, size = await self._objects.put_file(path)
            failpoint("dataset.before_pin")
            await self._store.pin(url, Blob(digest, size), fetched)
        complete = await self._store.complete(url)
        for manifest in complete.values():
            await self._objects.put_manifest(manifest)
        failpoint("dataset.before_finish")
        await self._store.finish(url, complete)

    async def _fetch(self, url: str, path: Path) -> Fetched:
        for delay in self._delays:
            try:
                return await self._from_anywhere(url, path)
            except FetchError as error:
                if not error.transient:
                    raise
                log.info("web file again", action="fetch_retry", code=error.code, after_s=delay)
            await asyncio.sleep(delay)
        return await self._from_anywhere(url, path)

    async def _from_anywhere(self, url: str, path: Path) -> Fetched:
        """Read the first of the places that has ``url``, its own address last."""
        failures: list[UserError] = []
        for copy in self._rewrites.copies(url):
            try:
                return await self._from_copy(copy, path)
            except UserError as error:
                log.info("web file not at its mirror", action="fetch_mirror", code=error.code)
                failures.append(error)
        try:
            return await self._guard.fetch(url, path)
        except UserError as error:
            if not failures:
                raise
            tried = "; ".join(each.message for each in failures)
            raise FetchError(
                f"{error.message}. Tried before: {tried}",
                code=error.code,
                transient=any(getattr(each, "transient", False) for each in (error, *failures)),
            ) from error

    async def _from_copy(self, copy: Copy, path: Path) -> Fetched:
        if copy.url is not None:
            fetched = await self._guard.fetch(copy.url, path)
            return replace(fetched, instead=copy.shown)
        try:
            await asyncio.to_thread(shutil.copyfile, copy.file or "", path)
        except OSError as error:
            raise FetchError(f"{copy.shown} cannot be read: {error.strerror}") from error
        return Fetched(copy.shown, None, copy.shown)
