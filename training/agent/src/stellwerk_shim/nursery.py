"""The fork server: a process that has the supervisor loaded and forks one for each attempt.

The executor holds the other end of a SOCK_SEQPACKET pair and sends the path of an attempt folder,
with the descriptors of a view where the run is walled in (`stellwerk_shim.cell`). The answer is the
supervisor's process id with a pidfd of it, so the id can never mean another process. A supervisor
cuts every tie at once: it outlives this process and the executor. The end of the connection ends
this process, so it never outlives the executor that started it.

A warm one runs in the Python of an environment and has its frameworks loaded: the supervisor's own
child then is the run's interpreter already. It first tells what it has loaded, or why it refuses.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import struct
import sys

from stellwerk_shim import signals
from stellwerk_shim.supervisor import supervise

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from stellwerk_shim.forked import Interpreter

MAX_PATH_BYTES = 8192
CHILD = (signals.CHLD,)
DESCRIPTORS = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))
VIEW_BYTES = socket.CMSG_SPACE(8)
CLOSED_BY_EXEC, LOST = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_CTRUNC)


def serve_warm(
    descriptor: int, names: list[str], started_with: frozenset[str], mounts: int = -1
) -> None:
    """Load `names`, tell the executor, then fork interpreters until the connection is closed.

    `started_with`: the modules that a script of its own would have found loaded. `mounts`: see
    `stellwerk_shim.apart.back`.
    """
    # What only a warm one needs: a page that is not there need not be copied by a fork.
    from stellwerk_shim.forked import Interpreter
    from stellwerk_shim.latent import hide
    from stellwerk_shim.preload import RefusedError, preload, write_origins

    sys.path.pop()  # the folder of this package, which a script must not see
    signals.handle(signals.INT, signals.interrupt)  # its scripts have what any interpreter has,
    signals.handle(signals.HUP, signals.DEFAULT)  # whatever the executor was started with
    link, home = socket.socket(fileno=descriptor), os.environ.get("HOME", "/")
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
    _serve(link, interpreter)


def serve(descriptor: int) -> None:
    """Fork a supervisor for each folder that arrives, until the connection is closed."""
    _serve(socket.socket(fileno=descriptor), None)


def _serve(link: socket.socket, interpreter: Interpreter | None) -> None:
    signals.handle(signals.CHLD, _reap)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page it looks at
    while True:
        folder, view, lost = _receive(link)
        if not folder or lost:  # without the view the run would fail; another server may get it
            return
        signals.mask(signals.BLOCK, CHILD)
        pid = os.fork()
        if pid == 0:
            _supervise(folder, interpreter, view)
        for descriptor in view:
            os.close(descriptor)
        pidfd = os.pidfd_open(pid)  # not reaped yet, so it is this child
        signals.mask(signals.UNBLOCK, CHILD)
        try:
            link.sendmsg([b"%d" % pid], [(*DESCRIPTORS, struct.pack("i", pidfd))])
        except OSError:
            return  # the executor is gone; the attempt goes on and will be adopted
        finally:
            os.close(pidfd)


def _receive(link: socket.socket) -> tuple[bytes, list[int], bool]:
    """An attempt folder, the descriptors that came with it, whether some could not be opened."""
    folder, control, flags, _ = link.recvmsg(MAX_PATH_BYTES, VIEW_BYTES, CLOSED_BY_EXEC)
    view = [
        number
        for level, kind, data in control
        if (level, kind) == DESCRIPTORS
        for number in struct.unpack(f"{len(data) // 4}i", data)
    ]
    return folder, view, bool(flags & LOST)


def _supervise(folder: bytes, interpreter: Interpreter | None, view: list[int]) -> None:
    """The child: become the supervisor of `folder`. Never returns."""
    try:
        signals.handle(signals.CHLD, signals.DEFAULT)
        signals.mask(signals.SETMASK, ())
        os._exit(supervise(os.fsdecode(folder), interpreter, view))
    finally:
        os._exit(70)  # the exception is in shim.log


def _reap(_number: int, _frame: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
