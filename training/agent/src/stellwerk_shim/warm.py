"""A warm process: the Python of an environment with its frameworks loaded, which forks runs.

The executor holds the other end of a SOCK_SEQPACKET pair and first hears what is loaded, or why
this process refuses. Where runs are walled in it is in a cell like theirs (`begin_in_a_cell`) and
forks only runs, whose supervisors are outside (`stellwerk_shim.warm_runs`). Without walls, and
where it loads no packages and may be outside of them, it forks supervisors whose run is a fork of
them (`stellwerk_shim.nursery`).
"""

from __future__ import annotations

import json
import os
import socket
import sys

from stellwerk_shim import cgroup, child, messages, nursery, signals
from stellwerk_shim.cell import Cell, CellError
from stellwerk_shim.warm_runs import WarmRuns

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from typing import NoReturn


def serve(
    descriptor: int,
    names: list[str],
    started_with: frozenset[str],
    *,
    walled: bool = False,
    mounts: int = -1,
) -> None:
    """Load `names`, tell the executor, then fork interpreters until the connection is closed.

    `started_with`: the modules that a script of its own would have found loaded. `walled`: this
    process is behind walls. `mounts`: see `stellwerk_shim.apart.back`.
    """
    # What only a warm one needs: a page that is not there need not be copied by a fork.
    from stellwerk_shim.forked import Interpreter
    from stellwerk_shim.latent import hide
    from stellwerk_shim.preload import RefusedError, preload, write_origins

    sys.path.pop()  # the folder of this package, which a script must not see
    signals.handle(signals.INT, signals.interrupt)  # its scripts have what any interpreter has,
    signals.handle(signals.HUP, signals.DEFAULT)  # whatever the executor was started with
    link, home = socket.socket(fileno=descriptor), os.environ.get("HOME", "/")
    link.set_inheritable(False)  # else it stays open in what a run has of us when we are gone
    os.chdir(home)
    try:
        told, said = preload(names, started_with)
        write_origins(os.path.join(home, "origins"))
    except RefusedError as refusal:
        link.send(json.dumps({"refused": str(refusal)}).encode())
        return
    link.send(json.dumps(told).encode())
    interpreter = Interpreter(home, mounts)
    hide(said)
    if walled:
        WarmRuns(link, interpreter).serve()
    else:
        nursery.serve(link, interpreter)


def begin_in_a_cell(descriptor: int) -> NoReturn:
    """Begin the warm process that the executor asks for; tell its id.

    With its pidfd, the gate and the users of its cell, which is there as long as anybody holds the
    gate. The message: `cell` and `cgroups` as of a run, `command` and `env`. It comes with the
    descriptors of a view.
    """
    os.closerange(descriptor + 1, 1 << 16)  # whatever the executor was started with
    link = socket.socket(fileno=descriptor)
    text, view, _ = messages.receive(link)
    asked = json.loads(text)
    cell = Cell(asked["cell"], view)
    try:
        cell.make()
        told, open_until_then = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os.close(open_until_then)
            os.read(told, 1)  # the first word is ours: nobody else says who is meant
            _become(asked, cell, link)
        messages.send(link, b"%d" % pid, [os.pidfd_open(pid), cell.gate, cell.users])
    except (CellError, OSError) as error:
        _refuse(link, error)
    os._exit(0)


def _become(asked: dict[str, object], cell: Cell, link: socket.socket) -> NoReturn:
    command: list[str] = asked["command"]  # type: ignore[assignment]
    env: dict[str, str] = asked["env"]  # type: ignore[assignment]
    try:
        os.setsid()
        cgroup.enter(cgroup.doors(asked["cgroups"]))  # type: ignore[arg-type]
        cell.enter()
        child.read_nothing()
        os.set_inheritable(link.fileno(), True)
        os.execve(command[0], command, env)
    except (CellError, OSError) as error:
        _refuse(link, error)
    os._exit(1)


def _refuse(link: socket.socket, error: Exception) -> None:
    words = f"cannot make its sandbox: {error}"
    link.send(json.dumps({"refused": words}).encode())
