"""A layer as a tar: the same bytes for the same files, wherever and whenever it is made.

Owned by root, sorted, of one time but for a few, with one of two modes. The files are read while
it is sent; it is never whole in memory or on a disk.
"""

import hashlib
import os
import posixpath
import stat
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk_environment_build.conda_prefix import Content
from stellwerk_environment_build.image_layers import with_folders

CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


class StoppedError(Exception):
    """Whoever wanted the layer wants it no more."""


class LayerArchive:
    """``paths`` of ``folder`` as a layer; ``len()`` are its bytes, known before they are read.

    ``content`` may give other bytes than a file has. ``times``: of the files that have one.
    ``digest`` is there when all was read.
    """

    def __init__(
        self,
        folder: Path,
        paths: tuple[str, ...],
        *,
        content: Content | None = None,
        times: Mapping[str, int] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._folder, self._content, self._times = folder, content, times or {}
        self._stop = stop or threading.Event()
        self.digest = ""
        inside = IMAGE_ENVIRONMENT.lstrip("/")
        above = [(name, None) for name in with_folders([inside])]
        members = [
            *above,
            *((posixpath.join(inside, each), each) for each in with_folders([*paths])),
        ]
        self._members = [self._member(name, path) for name, path in members]
        self._size = len(_END) + sum(
            len(header) + -(-size // _BLOCK) * _BLOCK for header, _, size in self._members
        )

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """Raises StoppedError, OSError where a file changed meanwhile."""
        digest = hashlib.sha256()
        for chunk in self._gathered():
            if self._stop.is_set():
                raise StoppedError("given up")
            digest.update(chunk)
            yield chunk
        self.digest = f"sha256:{digest.hexdigest()}"

    def _gathered(self) -> Iterator[bytes]:
        """Chunks of at least CHUNK bytes but for the last one."""
        gathered = bytearray()
        for header, path, size in self._members:
            gathered += header
            if path is None:
                continue
            for piece in self._read(path, size):
                gathered += piece
                if len(gathered) >= CHUNK:
                    yield bytes(gathered)
                    gathered.clear()
            gathered += bytes(-size % _BLOCK)
        yield bytes(gathered + _END)

    def _read(self, path: str, size: int) -> Iterator[bytes]:
        file = self._folder / path
        other = self._content(file) if self._content else None
        if other is not None:
            yield other
            return
        left = size
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as source:
            while left:
                piece = source.read(min(CHUNK, left))
                if not piece:
                    raise OSError(f"{path} became smaller while it was read")
                left -= len(piece)
                yield piece

    def _member(self, name: str, path: str | None) -> tuple[bytes, str | None, int]:
        """Header, the file that follows (None: nothing follows), and its size."""
        info = tarfile.TarInfo(name)
        info.uname = info.gname = "root"
        info.mode, info.type = 0o755, tarfile.DIRTYPE
        if path is None:
            return _header(info), None, 0
        about = os.lstat(f"{self._folder}/{path}")
        info.mtime = self._times.get(path, 0)
        if stat.S_ISLNK(about.st_mode):
            info.type, info.mode = tarfile.SYMTYPE, 0o777
            info.linkname = os.readlink(f"{self._folder}/{path}")  # noqa: PTH115 - thousands of them
        elif stat.S_ISREG(about.st_mode):
            info.type, info.size = tarfile.REGTYPE, about.st_size
            info.mode = 0o755 if about.st_mode & 0o111 else 0o644
            other = self._content(self._folder / path) if self._content else None
            if other is not None:
                info.size = len(other)
            return _header(info), path, info.size
        return _header(info), None, 0


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
