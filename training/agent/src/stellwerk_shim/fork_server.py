"""What forks on demand: the loop of a process that forks itself for each message that arrives."""

from __future__ import annotations

import gc
import os

from stellwerk_shim import messages, signals

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

CHILD = (signals.CHLD,)


def fork_for_each(
    link: socket.socket,
    become: Callable[[bytes, list[int]], int],
    answer: Callable[[int], None] = lambda _pid: None,
) -> None:
    """Fork for each message, until the connection is closed.

    The child calls ``become`` with the text and the descriptors, and ends with its status;
    ``answer`` is called here with its id, which cannot mean another process until it returns.
    """
    signals.handle(signals.CHLD, _reap)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page it looks at
    while True:
        text, given, lost = messages.receive(link)
        if not text or lost:  # what is not whole would fail; another server may get it
            return
        signals.mask(signals.BLOCK, CHILD)
        pid = os.fork()
        if pid == 0:
            try:
                signals.handle(signals.CHLD, signals.DEFAULT)
                signals.mask(signals.SETMASK, ())
                os._exit(become(text, given))
            finally:
                os._exit(70)
        for descriptor in given:
            os.close(descriptor)
        try:
            answer(pid)
        except OSError:
            return  # the executor is gone; its attempt goes on and will be adopted
        finally:
            signals.mask(signals.UNBLOCK, CHILD)


def _reap(_number: int, _frame: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
