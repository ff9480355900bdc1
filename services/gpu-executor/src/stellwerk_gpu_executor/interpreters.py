"""Pythons of this machine, for environments that their users manage themselves."""

import asyncio
import os
import shutil
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

SHIMS = "shims"
"""Folder of pyenv, asdf and mise, with what starts the program of the wanted version."""
KEPT_S = 10.0
ANSWER_S = 30.0
_SEEN = ("PATH", "HOME", "LANG", "PYENV_", "ASDF_", "MISE_")
_ASK = ("-I", "-S", "-c", "import sys; print(sys.executable)")


class InterpreterError(Exception):
    """There is none; the text is for users and continues "interpreter NAME"."""


class Interpreters:
    """Finds them on this process's PATH, and what a version manager's shims stand for.

    ``runs``: the executor's folder, where none is looked for.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._kept: dict[str, tuple[float, str]] = {}

    async def find(self, wanted: str) -> str:
        """Path of ``wanted``, a path or a name on the PATH; ``python`` may be ``python3``.

        Raises InterpreterError.
        """
        names = (wanted, "python3") if wanted == "python" else (wanted,)
        found = next(filter(None, map(shutil.which, names)), None)
        if found is None:
            raise InterpreterError(
                "is not on this node; give the path of one that is, 'python' for the first on the "
                "PATH of the executor, or let Stellwerk build the environment "
                "(user_managed_dependencies = False)"
            )
        path = Path(found).absolute()
        # By name alone, so on our own PATH: nothing that a user names a path of is asked here.
        by_name = "/" not in wanted
        real = await self._behind(str(path)) if by_name and _is_shim(path) else str(path)
        refuse_written_by_runs(real, self._runs)
        return real

    async def _behind(self, shim: str) -> str:
        """The Python that a shim starts: the shim itself shows no run what it is made of.

        Which one that is may change at any time, so an answer is kept for ten seconds only.
        """
        until, real = self._kept.get(shim, (0.0, ""))
        if time.monotonic() >= until:
            real = await _ask(shim)
            self._kept[shim] = time.monotonic() + KEPT_S, real
        return real


@lru_cache(maxsize=256)  # what no run can write, none can make another
def refuse_written_by_runs(path: str, folder: Path) -> None:
    """Raise InterpreterError for what a run may have written: what lies in the executor's folder.

    A warm process may be started with it outside of all walls. Below ``/proc``, which ``..`` behind
    a link may lead to, a path can mean another file by the time it is started.
    """
    spelled, place = Path(path), folder.resolve()
    unsure = ".." in spelled.parts or path.startswith(("/proc/", "/dev/fd/"))
    if unsure or any(each.is_relative_to(place) for each in (spelled, spelled.resolve())):
        raise InterpreterError(
            "is a path that leads to where runs write, or may; give that of a Python of this "
            "machine, without '..'"
        )


def _is_shim(path: Path) -> bool:
    return SHIMS in {path.parent.name, path.resolve().parent.name}


async def _ask(shim: str) -> str:
    env = {name: value for name, value in os.environ.items() if name.startswith(_SEEN)}
    try:
        process = await asyncio.create_subprocess_exec(
            shim, *_ASK, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env=env, start_new_session=True
        )
    except OSError as error:
        raise _silent(shim) from error
    try:
        async with asyncio.timeout(ANSWER_S):
            said, _ = await process.communicate()
    except TimeoutError:
        said = b""
    finally:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # a shim may start others
        await process.wait()
    real = said.decode(errors="replace").strip()
    if process.returncode or not real.startswith("/"):
        raise _silent(shim)
    return real


def _silent(shim: str) -> InterpreterError:
    return InterpreterError(
        f"is {shim} on this node, which starts no Python; choose a version with its version "
        "manager, or give the path of a Python"
    )
