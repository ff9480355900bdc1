"""What the supervisor needs of `signal`, as plain numbers and the functions in C.

The functions of `signal` turn numbers into enumeration members and back. In a fork every object
they look at is a page to copy: a hundred of them for each process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # the C module behind `signal`

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BLOCK: int = _signal.SIG_BLOCK
SETMASK: int = _signal.SIG_SETMASK
UNBLOCK: int = _signal.SIG_UNBLOCK
DEFAULT: int = int(_signal.SIG_DFL)
IGNORE: int = int(_signal.SIG_IGN)

CHLD: int = _signal.SIGCHLD
HUP: int = _signal.SIGHUP
INT: int = _signal.SIGINT
KILL: int = _signal.SIGKILL
STOP: int = _signal.SIGSTOP
PIPE: int = _signal.SIGPIPE
TERM: int = _signal.SIGTERM
XFSZ: int = _signal.SIGXFSZ

interrupt: Callable[[int, object], None] = _signal.default_int_handler
handle: Callable[[int, int | Callable[[int, object], None]], object] = _signal.signal
mask: Callable[[int, Iterable[int]], object] = _signal.pthread_sigmask
send: Callable[[int, int], None] = _signal.pidfd_send_signal
wake_by: Callable[..., int] = _signal.set_wakeup_fd
