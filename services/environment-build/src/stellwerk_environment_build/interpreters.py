"""The Python interpreters of this machine that environments can be made with.

Each candidate is asked once, at start; nothing is searched while a run waits.
"""

import asyncio
import json
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

_OLDEST = (3, 6)
_NEWEST_MINOR = 20
_PROBE_SECONDS = 10.0
_PROBES_AT_ONCE = 4
# Importing venv and ensurepip's platform part is what an interpreter without headers fails at.
_PROBE = (
    "import json, platform, sys, sysconfig, venv;"
    "print(json.dumps([platform.python_implementation(), list(sys.version_info[:3]),"
    " sys.version_info[3], sys.prefix == sys.base_prefix]))"
)


@dataclass(frozen=True)
class Interpreter:
    """A CPython that can create virtual environments. ``version`` is complete, as in 3.11.7."""

    version: str
    path: Path


def platform_tag() -> str:
    """What binary packages of this machine depend on, for example ``linux-x86_64-glibc``."""
    libc = platform.libc_ver()[0]
    return "-".join(part for part in (sysconfig.get_platform(), libc) if part)


async def find_interpreters(preferred: Sequence[Path] = ()) -> tuple[Interpreter, ...]:
    """Usable interpreters: ``preferred`` and this process's own first, then newest first.

    Of several with the same version the first one found is kept.
    """
    gate = asyncio.Semaphore(_PROBES_AT_ONCE)
    first = [*preferred, _own_base()]
    candidates = list(dict.fromkeys([*first, *_on_path(), *_of_pyenv()]))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_probe(path, gate)) for path in candidates]
    found = [task.result() for task in tasks]
    leading = [each for each in found[: len(set(first))] if each is not None]
    others = sorted(
        (each for each in found[len(set(first)) :] if each is not None),
        key=lambda each: Version(each.version),
        reverse=True,
    )
    return _distinct([*leading, *others])


def _own_base() -> Path:
    """The interpreter below this process's virtual environment, or this process's own."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix, "bin", name)
    return base if base.exists() else Path(sys.executable)


def _on_path() -> Iterator[Path]:
    names = [f"python3.{minor}" for minor in range(_NEWEST_MINOR, _OLDEST[1] - 1, -1)]
    for name in [*names, "python3"]:
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            path = Path(folder, name)
            # A version manager's shim is a script that starts something else, or fails.
            if folder and path.parent.name != "shims" and os.access(path, os.X_OK):
                yield path


def _of_pyenv() -> Iterator[Path]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(root.glob("versions/3.*/bin/python3"))


async def _probe(path: Path, gate: asyncio.Semaphore) -> Interpreter | None:
    async with gate:
        return await asyncio.to_thread(_ask, path)


def _ask(path: Path) -> Interpreter | None:
    try:
        answer = subprocess.run(
            [str(path), "-I", "-S", "-c", _PROBE],
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=True,
            env={"PATH": os.defpath},
        ).stdout
        implementation, release, level, is_base = json.loads(answer)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    usable = implementation == "CPython" and tuple(release) >= _OLDEST and level == "final"
    if not (usable and is_base):
        return None
    return Interpreter(".".join(str(part) for part in release), path)


def _distinct(found: Iterable[Interpreter]) -> tuple[Interpreter, ...]:
    by_version: dict[str, Interpreter] = {}
    for each in found:
        by_version.setdefault(each.version, each)
    return tuple(by_version.values())
