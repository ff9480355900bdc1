"""One warm process: started, heard when it has loaded everything, ended."""

import asyncio
import hashlib
import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter, ValidationError

import stellwerk_shim
from stellwerk_gpu_executor.fonts import FOLDER
from stellwerk_gpu_executor.forkserver import ANSWER_S, WarmServer
from stellwerk_gpu_executor.isolation import Isolation, WarmWalls
from stellwerk_gpu_executor.sandbox import WARM_CODE, WARM_HOME
from stellwerk_gpu_executor.spawner import starting_environment
from stellwerk_gpu_executor.warm_identity import Marks, environment_of
from stellwerk_gpu_executor.warm_rules import Recipe
from stellwerk_shim import cgroup, messages

LINK = 3
LOAD_S = 180.0
TELL_BYTES = 1 << 20
_ENTRY = Path(stellwerk_shim.__file__).with_name("__main__.py")
OWN = (sys.executable, "-I", "-S", str(_ENTRY))
"""Our own code in our own Python."""


class ColdError(Exception):
    """There is no warm process for a run; the text says why."""


class Told(BaseModel):
    """What one says when it is ready, see `stellwerk_shim.preload`."""

    model_config = ConfigDict(frozen=True)

    modules: frozenset[str]
    startup: tuple[str, ...]
    loaded: tuple[str, ...]
    seconds: FiniteFloat


class _Refusal(BaseModel):
    refused: str


_WORD: TypeAdapter[_Refusal | Told] = TypeAdapter(_Refusal | Told)


@dataclass
class WarmProcess:
    """``used`` and ``began_ns`` are when, on the monotonic clock and since the epoch.

    ``ready`` is done when it may serve; its exception is a ColdError. ``home`` and its log lie in
    the folder that it is given.
    """

    recipe: Recipe
    home: Path
    used: float
    environment: Marks
    began_ns: int
    ready: "asyncio.Future[Told]"
    server: WarmServer | None = None
    walls: WarmWalls | None = None
    forks: int = 0
    renew_after: int = 0
    """Forks before which no successor is tried (again)."""
    loaded_bytes: int = 0
    """What it took when it had loaded everything."""
    untouched: bool = False
    """Whether it was seen to have left the GPUs alone."""
    loading: "asyncio.Task[None] | None" = None

    @classmethod
    def of(
        cls, recipe: Recipe, folder: Path, now: float, beside: Path | None = None
    ) -> "WarmProcess":
        """One that is not begun yet, in another home than one like it that lives ``beside``."""
        name = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
        if beside is not None and beside.name == name:
            name = f"{name}-next"
        marks, began_ns = environment_of(recipe.python), time.time_ns()
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        return cls(recipe, folder.absolute() / name, now, marks, began_ns, future)

    async def load(
        self, modules: Sequence[str], isolation: Isolation, memory_bytes: int | None = None
    ) -> Told:
        """Begin it, with ``memory_bytes`` at most; what it says when it has loaded ``modules``.

        Raises OSError (ConnectionResetError when it ended, TimeoutError after three minutes),
        ColdError where it refuses or makes no sense, and WallsError.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        self.walls = await isolation.around_warm(
            self.home,
            Path(self.recipe.python),
            _ENTRY.parent,
            memory_bytes,
            user_managed=self.recipe.user_managed,
            plain=self.recipe.plain,
        )
        log = f"{self.home}.log"
        if self.walls is None:
            apart = isolation.views is not None
            how = "--warm-apart" if apart else "--warm"
            command = [self.recipe.python, str(_ENTRY), how, str(LINK), *modules]
            if apart:
                command = [*OWN, "--apart", *command]
            self.server = WarmServer(command, self._env(str(self.home)), LINK, log)
            return await self._hear(self.server)
        below = self.walls.attempts
        entry = f"{below}/{WARM_CODE}/{_ENTRY.parent.name}/{_ENTRY.name}"
        asked = {
            "cell": self.walls.cell,
            "cgroups": self.walls.groups,
            "command": [self.recipe.python, entry, "--warm-walled", str(LINK), *modules],
            "env": self._env(f"{below}/{WARM_HOME}"),
        }
        command = [*OWN, "--begin-walled", str(LINK)]
        self.server = server = WarmServer(command, starting_environment(), LINK, log)
        socket.send_fds(server.link, [json.dumps(asked).encode()], self.walls.view.descriptors)
        told = await self._hear(server)
        if not server.walled:
            raise ColdError("it is not behind its walls")
        return told

    def _env(self, home: str) -> dict[str, str]:
        return {"MPLCONFIGDIR": f"{home}/{FOLDER}", **dict(self.recipe.variables), "HOME": home}

    async def _hear(self, server: WarmServer) -> Told:
        """Its word that it has loaded everything; before that, behind walls, who it is."""
        loop, heard, number = asyncio.get_running_loop(), asyncio.Event(), server.link.fileno()
        server.link.setblocking(False)  # it may have woken us for nothing
        loop.add_reader(number, heard.set)
        try:
            async with asyncio.timeout(LOAD_S):
                while True:
                    await heard.wait()
                    heard.clear()
                    try:
                        data, descriptors, _ = messages.receive(server.link, TELL_BYTES)
                    except BlockingIOError:
                        continue
                    if not descriptors:
                        break
                    server.began(data, descriptors)
        finally:
            if server.link.fileno() == number:  # else dropped: the number may be another's
                loop.remove_reader(number)
                if not server.walled:
                    server.link.settimeout(ANSWER_S)
        if not data and self.out_of_memory():
            raise ColdError("it needs more memory than this node allows")
        if not data:
            raise ConnectionResetError("it ended while it was loading")
        try:
            told = _WORD.validate_json(data)
        except ValidationError:
            raise ColdError("what it says of itself makes no sense") from None
        if isinstance(told, _Refusal):
            raise ColdError(told.refused)
        return told

    def end(self) -> None:
        """End it; its runs go on."""
        if self.loading is not None and not self.ready.done():
            self.loading.cancel()
        if self.server is None:
            return
        if not self.ready.done():
            # Its number may be another's as soon as it is closed: nobody listens to it then.
            self.ready.get_loop().remove_reader(self.server.link.fileno())
        self.server.close()

    def out_of_memory(self) -> bool:
        """Whether the kernel has ended it, or a child of it, for its limit of memory."""
        return self.walls is not None and cgroup.oom_kills(list(self.walls.groups)) > 0

    def memory(self) -> int:
        """Its share of the memory in bytes, 0 when it is gone."""
        if self.server is None:
            return 0
        try:
            return int(psutil.Process(self.server.pid).memory_full_info().pss)
        except psutil.Error:
            return 0
