"""Whether loading frameworks has left this machine's GPUs alone.

A fork of a process that has begun to use a GPU cannot use it: a run that asks for GPUs begins warm
only where its warm process is seen to have no descriptor and no mapping of a GPU's device, and the
driver does not name it among those that compute or draw. In a process namespace of its own, as in a
container, the driver may name other ids: there descriptors and mappings alone count.

`python -m stellwerk_gpu_executor.gpu_check <python> [module]...` loads modules in an environment's
Python as a warm process does, says what it found, and ends with 0 where runs with GPUs begin warm.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import pynvml

from stellwerk_gpu_executor.isolation import Isolation
from stellwerk_gpu_executor.settings import Settings
from stellwerk_gpu_executor.warm_process import ColdError, WarmProcess
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_shim.preload import DEVICES

UNSEEN = "its warm process cannot be looked at"


def touched(pid: int) -> str | None:
    """Why a fork of this process must not have a GPU, None if nothing speaks against it."""
    try:
        opened = _opened(pid)
        if opened is not None:
            return f"loading its frameworks has opened {opened}"
        users = _users()
    except OSError:
        return UNSEEN
    except pynvml.NVMLError as error:
        return f"the GPUs of this node cannot be asked who uses them: {error}"
    if pid in users:
        return "loading its frameworks has begun to use a GPU"
    return None


def _opened(pid: int) -> str | None:
    """A GPU's device that a process has open or in its memory. Raises OSError."""
    found = [_link(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
    found += [line.split(None, 5)[5] for line in maps.splitlines() if "/dev/" in line]
    return next((name for name in found if name.startswith(DEVICES)), None)


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return ""  # closed meanwhile


def _users() -> set[int]:
    """Processes that the driver knows to use a GPU. Raises NVMLError where it cannot be asked."""
    pynvml.nvmlInit()
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return {
            process.pid
            for handle in handles
            for ask in (
                pynvml.nvmlDeviceGetComputeRunningProcesses,
                pynvml.nvmlDeviceGetGraphicsRunningProcesses,
            )
            for process in ask(handle)
        }
    finally:
        pynvml.nvmlShutdown()


async def _look(python: str, modules: list[str]) -> tuple[str, str | None]:
    """Load ``modules`` as a warm process does: which are there, why runs with GPUs begin cold.

    Raises ColdError where there can be no warm process at all, or OSError.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = WarmProcess.of(recipe_of(python, os.environ), Path(folder), 0.0)
        try:
            told = await process.load(modules, Isolation())
            assert process.server is not None  # noqa: S101 - it is loaded
            return ", ".join(told.loaded), touched(process.server.pid)
        finally:
            process.end()


def main(python: str, *modules: str) -> int:
    """See the module's text."""
    loaded, names = "", list(modules or Settings.model_fields["preload"].default)
    try:
        loaded, reason = asyncio.run(_look(python, names))
    except (ColdError, OSError) as error:
        reason = str(error)
    verdict = "warm" if reason is None else f"cold: {reason}"
    sys.stdout.write(f"loaded: {loaded or 'nothing'}\nruns with GPUs begin {verdict}\n")
    return 0 if reason is None else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give the Python of an environment, as `stellwerk_gpu_executor.gpu_check PYTHON`")
    sys.exit(main(*sys.argv[1:]))
