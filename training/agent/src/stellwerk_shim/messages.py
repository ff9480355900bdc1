"""Messages with descriptors over a socket of this machine."""

from __future__ import annotations

import socket
import struct

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 1 << 16
MOST = 64
"""Descriptors in one message; the kernel takes 253."""
DESCRIPTORS = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))
CLOSED_BY_EXEC, LOST = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_CTRUNC)


def send(link: socket.socket, text: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send ``text`` with ``descriptors``, which stay open here. Raises OSError."""
    rights = struct.pack(f"{len(descriptors)}i", *descriptors)
    link.sendmsg([text], [(*DESCRIPTORS, rights)] if descriptors else [])


def receive(link: socket.socket, size: int = MAX_BYTES) -> tuple[bytes, list[int], bool]:
    """A message, what came with it, and whether some of that could not be opened here.

    Empty where the other end is closed. What is longer than ``size`` bytes is cut. Raises OSError.
    """
    text, control, flags, _ = link.recvmsg(size, socket.CMSG_SPACE(4 * MOST), CLOSED_BY_EXEC)
    found = [
        number
        for level, kind, data in control
        if (level, kind) == DESCRIPTORS
        for number in struct.unpack(f"{len(data) // 4}i", data)
    ]
    return text, found, bool(flags & LOST)
