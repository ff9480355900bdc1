"""One warm process: started, heard when it has loaded everything, ended."""

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import stellwerk_shim
from stellwerk_gpu_executor.fonts import FOLDER
from stellwerk_gpu_executor.forkserver import ForkServer
from stellwerk_gpu_executor.warm_identity import Marks, environment_of
from stellwerk_gpu_executor.warm_rules import Recipe

LINK = 3
LOAD_S = 180.0
TELL_BYTES = 1 << 20
_ENTRY = Path(stellwerk_shim.__file__).with_name("__main__.py")


class ColdError(Exception):
    """There is no warm process for a run; the text says why."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one said when it was ready: modules that are loaded, code its environment runs first."""

    modules: frozenset[str]
    startup: tuple[str, ...]


@dataclass
class WarmProcess:
    """``used`` and ``began_ns`` are when, on the monotonic clock and since the epoch.

    ``ready`` is done when it may serve; its exception is a ColdError.
    """

    server: ForkServer
    home: Path
    environment: Marks
    used: float
    ready: "asyncio.Future[Told]"
    began_ns: int
    forks: int = 0
    untouched: bool = False
    """Whether it was seen to have left the GPUs alone."""
    loading: "asyncio.Task[None] | None" = None

    @classmethod
    def begin(
        cls,
        recipe: Recipe,
        folder: Path,
        modules: Sequence[str],
        now: float,
        *,
        walled: bool = False,
    ) -> "WarmProcess":
        """Start it; its home and its log lie in ``folder``. Raises OSError.

        ``walled``: its runs are, so its own file must be out of their reach as well.
        """
        name = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
        home = folder.absolute() / name
        home.mkdir(parents=True, exist_ok=True)
        env = {"MPLCONFIGDIR": f"{home}/{FOLDER}", **dict(recipe.variables), "HOME": str(home)}
        apart = walled and os.geteuid() == 0  # nobody else could go back to the machine's mounts
        how = "--warm-apart" if apart else "--warm"
        command = [recipe.python, str(_ENTRY), how, str(LINK), *modules]
        if apart:
            command = [sys.executable, "-I", "-S", str(_ENTRY), "--apart", *command]
        environment, began_ns = environment_of(recipe.python), time.time_ns()
        server = ForkServer(command, env, LINK, str(folder / f"{name}.log"))
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        return cls(server, home, environment, now, future, began_ns)

    async def hear(self) -> dict[str, Any]:
        """What it says when it has loaded everything, or why it refuses.

        Raises ConnectionResetError when it ended, TimeoutError after three minutes.
        """
        loop, heard, number = asyncio.get_running_loop(), asyncio.Event(), self.server.link.fileno()
        loop.add_reader(number, heard.set)
        try:
            async with asyncio.timeout(LOAD_S):
                await heard.wait()
        finally:
            if self.server.link.fileno() == number:  # else dropped: the number may be another's
                loop.remove_reader(number)
        data = self.server.link.recv(TELL_BYTES)
        if not data:
            raise ConnectionResetError("it ended while it was loading")
        told: dict[str, Any] = json.loads(data)
        return told

    def end(self) -> None:
        """End it; its runs go on."""
        if self.loading is not None and not self.ready.done():
            # Its number may be another's as soon as it is closed: nobody listens to it then.
            self.ready.get_loop().remove_reader(self.server.link.fileno())
            self.loading.cancel()
        self.server.close()

    def memory(self) -> int:
        """Its share of the memory in bytes, 0 when it is gone."""
        try:
            return int(psutil.Process(self.server.pid).memory_full_info().pss)
        except psutil.Error:
            return 0
