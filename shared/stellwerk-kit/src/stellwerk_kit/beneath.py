"""Opens files in folders that others write to: no link on the way is followed, whenever it came."""

import errno
import os
import stat
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


class OpenFile:
    """A file that is open to read; closed when nobody holds it, a worker thread included."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @property
    def path(self) -> Path:
        """Leads to this very file while it is held, whatever stands under its name."""
        return Path(f"/proc/self/fd/{self.descriptor}")

    def close(self) -> None:
        """Close it now."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def open_beneath(top: Path, path: Path) -> OpenFile:
    """Open the regular file ``path``, which lies below the folder ``top``, a trusted one.

    Raises OSError where a part of the way is a link or it is no regular file, ValueError for `..`.
    """
    *folders, name = path.relative_to(top).parts
    if ".." in folders or name == "..":
        raise ValueError(f"{name} is not below its folder")
    place = os.open(top, _FOLDER & ~os.O_NOFOLLOW)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=place)
            os.close(place)
            place = inner
        file = OpenFile(os.open(name, _FILE, dir_fd=place))
    finally:
        os.close(place)
    if not stat.S_ISREG(os.fstat(file.descriptor).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return file
