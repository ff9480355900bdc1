"""The cell of a builder that has no bubblewrap but makes images: a throw-away container.

``python -m stellwerk_environment_build.engine_cell <about> <words of bubblewrap> -- <program>``
starts the program in a container as bubblewrap would in its walls, for as long as this process
lives: streams, environment and exit status are passed on. The container has no network and no
privilege, a root that cannot be written, and of the machine what those words show.

Where the builder is a container of that engine, the cell is one of the same image, and what is
shown lies on the builder's own mounts or in that image. Else it is one of the base of images, with
this machine's system over it.
"""

import json
import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stellwerk_environment_build import engine_cell_first

if TYPE_CHECKING:  # they are slow to load
    from docker import APIClient

    from stellwerk_environment_build.image_engine import ImageSettings

PROCESSES = 4096
"""The most in a cell, threads included, as in a run."""
NOT_STARTED = 125
NO_CONTAINER = "no container: "
"""What is said then before the reason."""
_ENGINE = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_CALL_S = 60
_READ_ONLY_BELOW = (1, 44)
"""From this version of its API on, an engine makes what is mounted below unwritable as well."""


class CellError(Exception):
    """There can be no such container; the text says why."""


def walls_by_engine(settings: "ImageSettings") -> tuple[str, ...]:
    """How a command line begins, in place of bubblewrap and its walls.

    The base of images is pulled for it if it is not here. Cells of this builder that were made and
    never started are removed: the engine sees to those alone that ran. Raises BuildFailedError
    where engine or base cannot be had: that they are away for a while is no reason to do without
    walls.
    """
    from stellwerk_environment_build.image_engine import (  # noqa: PLC0415 - slow to load
        NAME,
        TROUBLE,
        connect,
        failed,
        forget_unstarted,
        need_base,
    )

    name = f"{NAME}{settings.mark('cell')}-"
    try:
        with connect() as client:
            need_base(client, settings)
            forget_unstarted(client, name)
    except TROUBLE as error:
        raise failed("engine", error) from error
    about = {
        "engine": {name: os.environ[name] for name in _ENGINE if os.environ.get(name)},
        "image": settings.base,
        "name": name,
        "memory": settings.memory_bytes,
    }
    return (
        sys.executable,
        "-I",
        "-m",
        "stellwerk_environment_build.engine_cell",
        json.dumps(about),
    )


@dataclass
class Asked:
    """What bubblewrap's words ask for. ``shown``: by place, what is seen there, if writable."""

    shown: dict[str, tuple[Path, bool]] = field(default_factory=dict)
    network: bool = False
    argv: Sequence[str] = ()

    @classmethod
    def read(cls, words: Sequence[str]) -> Self:
        """From the few words that cells are made with. Raises CellError for any other."""
        asked, left = cls(), iter(words)
        for word in left:
            if word == "--":
                asked.argv = [*left]
            elif word == "--share-net":
                asked.network = True
            elif word == "--chdir":
                next(left)
            elif word in {"--ro-bind", "--ro-bind-try", "--bind", "--symlink"}:
                source, place = Path("/", next(left)), next(left)
                if word != "--ro-bind-try" or source.exists():
                    asked.shown[place] = (source, word == "--bind")
            else:
                raise CellError(f"a container cannot do {word}")
        return asked


def config_of(
    asked: Asked, about: Mapping[str, Any], own: Mapping[str, Any] | None, api: tuple[int, ...]
) -> dict[str, Any]:
    """The container as the engine wants it told; ``own`` is the builder's, if it is one.

    Raises CellError.
    """
    network = f"container:{own['Id']}" if own else "host"
    mounts = []
    for place, (source, writable) in asked.shown.items():
        found = _on_machine(source, own)
        if found is None and writable:
            raise CellError(f"{source} is in the builder's container alone; put it on a volume")
        if found is not None:
            mounts.append(
                {
                    "Type": "bind",
                    "Source": found,
                    "Target": place,
                    "ReadOnly": not writable,
                    "BindOptions": {"NonRecursive": not writable and api < _READ_ONLY_BELOW},
                }
            )
    first = Path(engine_cell_first.__file__).read_text(encoding="utf-8")
    return {
        "Image": own["Image"] if own else about["image"],
        "Entrypoint": [sys.executable, "-I", "-S", "-c", first],
        "User": f"{os.getuid()}:{os.getgid()}",
        "WorkingDir": "/",
        "OpenStdin": True,
        "StdinOnce": True,  # it ends when this process does
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "AutoRemove": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": "mode=1777"},  # noqa: S108 - its own
            "NetworkMode": network if asked.network else "none",
            "PidsLimit": PROCESSES,
            "Memory": about["memory"],
            "MemorySwap": about["memory"],
            "LogConfig": {"Type": "none"},
            "Mounts": mounts,
        },
    }


def _on_machine(source: Path, own: Mapping[str, Any] | None) -> str | None:
    """Where the engine's machine has it; None for what only the builder's container has.

    Links are followed here, not by the engine, which would follow them as root.
    """
    try:
        real = source.resolve(strict=True)
    except OSError as error:
        raise CellError(f"{source}: {error.strerror}") from error
    if own is None:
        return str(real)
    mounts = {Path(each["Destination"]): each["Source"] for each in own["Mounts"]}
    for above in (real, *real.parents):
        if above in mounts:
            return os.path.normpath(Path(mounts[above], real.relative_to(above)))
    return None


def _run(
    api: "APIClient", waiting: "APIClient", name: str, config: dict[str, Any], first: bytes
) -> int:
    """Its exit status; what it says goes to this process's streams."""
    from docker.utils.socket import STDERR, frames_iter  # noqa: PLC0415 - slow to load

    made = api.create_container_from_config(config, name)["Id"]
    try:
        wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        stream = api.attach_socket(made, wanted)
        wire = getattr(stream, "_sock", stream)
        wire.settimeout(None)
        with ThreadPoolExecutor(1) as thread:
            # Asked before it can end: the engine knows nothing of one that is removed.
            status = thread.submit(waiting.wait, made, condition="removed")
            api.start(made)
            wire.sendall(first)
            for kind, data in frames_iter(stream, tty=False):
                out = sys.stderr if kind == STDERR else sys.stdout
                out.buffer.write(data)
                out.buffer.flush()
            return int(status.result()["StatusCode"])
    except BaseException:
        with suppress(Exception):
            api.remove_container(made, force=True, v=True)
        raise


def main() -> int:
    """Exit status of the program, NOT_STARTED where there is no container."""
    environ = dict(os.environ)
    os.environ.clear()  # it is the program's
    import docker  # noqa: PLC0415 - slow to load
    from docker.errors import DockerException, NotFound  # noqa: PLC0415
    from requests import RequestException  # noqa: PLC0415

    about = json.loads(sys.argv[1])
    try:
        asked = Asked.read(sys.argv[2:])
        api = docker.from_env(environment=about["engine"], timeout=_CALL_S).api
        waiting = docker.from_env(environment=about["engine"], timeout=None).api
        own = None
        with suppress(NotFound):
            own = api.inspect_container(socket.gethostname())
        version = tuple(map(int, api.api_version.split(".")))
        config = config_of(asked, about, own, version)
        first = json.dumps({"argv": asked.argv, "environ": environ}).encode() + b"\n"
        name = about["name"] + secrets.token_hex(8)
        return _run(api, waiting, name, config, first)
    except (CellError, DockerException, RequestException, OSError) as error:
        sys.stderr.write(f"{NO_CONTAINER}{error}\n")
        return NOT_STARTED


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a thread may still wait for the engine
