"""Keeps the folders of attempts apart on the disk.

ext4 gives no inode away again for a minute or more after its file was removed, and passes by each
of them whenever it looks for one in the same part of the disk. Runs that come and go quickly, a
dozen files each, pay for that with more than all else the executor does (docs/performance.md).
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

GET_FLAGS, SET_FLAGS = 0x80086601, 0x40086602
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS (linux/fs.h), for 64 bits."""
TOP_FOLDER = 0x00020000
"""FS_TOPDIR_FL: ext4 puts each folder in this one elsewhere; see chattr(1), T."""


def spread(folder: Path) -> None:
    """Make ``folder``; what is made in it lies apart, where the file system knows how."""
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            flags = bytearray(8)
            fcntl.ioctl(opened, GET_FLAGS, flags)
            value = int.from_bytes(flags, "little") | TOP_FOLDER
            fcntl.ioctl(opened, SET_FLAGS, value.to_bytes(8, "little"))
    finally:
        os.close(opened)
