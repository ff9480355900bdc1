"""An archive laid out as the folder that it was made of, to build from: tar, or zip.

Nothing that an archive says is trusted: every name is checked before anything is written, links
are made last, so that nothing is written through one, and have to end within; what is no file,
folder or link is refused; bytes and entries are counted as they come, whatever headers promise.
"""

import bz2
import gzip
import lzma
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import IO, NoReturn

from stellwerk.errors import UserError
from stellwerk.manifest import safe_path
from stellwerk.sizes import size_text
from stellwerk.snapshot import MAX_BYTES

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
"""How the names of archives end, in small or large letters."""
MAX_ENTRIES = 10_000
"""Files, links and folders; those that an ignore file leaves out count, as their bytes do."""
_LESS = "pack what the build needs alone, or name the folder, where an ignore file counts first"
_MAX_LINK_BYTES = 4096
_HEADERS_BYTES = 2048
"""What tar may spend on an entry beside its content."""
_CHUNK = 1 << 20
_UNIX = 3
"""The system of a zip's entries that have a mode."""
_ENCRYPTED = 0x41
_COMPRESSED: dict[bytes, Callable[[Path], BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""By the first bytes, since names are often wrong about it."""
_KINDS = {
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The archive's files in a folder that is gone after the block.

    They are at most 300 MB. Raises UserError ``env.build_context`` that names archive and entry.
    """
    if not archive.name.lower().endswith(ENDINGS):
        _refuse(archive, None, f"is neither a folder nor an archive ({', '.join(ENDINGS)})")
    with tempfile.TemporaryDirectory(prefix="stellwerk-context-") as place:
        root = Path(place).resolve() / "context"
        root.mkdir()
        layout = _Layout(archive, root)
        try:
            if archive.name.lower().endswith(".zip"):
                _zip(archive, layout)
            else:
                _tar(archive, layout, root.with_name("tar"))
            layout.link_all()
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - what parsers raise of broken bytes has no end
            said = str(error) or type(error).__name__
            why = f"cannot be unpacked, it may be damaged ({said}); pack or fetch it again"
            _refuse(archive, None, why)
        yield root


@dataclass
class _Layout:
    """The folder ``root`` as entries fill it, one after the other."""

    archive: Path
    root: Path
    links: dict[Path, tuple[str, str]] = field(default_factory=dict)
    _files: dict[str, Path] = field(default_factory=dict)
    _bytes_left: int = field(default_factory=lambda: MAX_BYTES)
    _entries_left: int = field(default_factory=lambda: MAX_ENTRIES)

    def folder(self, name: str) -> None:
        """An empty one; it may be there."""
        path = self._place(name)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            self._twice(name)

    def file(self, name: str, content: IO[bytes], *, executable: bool) -> None:
        """A file that is not there."""
        path = self._place(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            out = path.open("xb")
        except (FileExistsError, NotADirectoryError):
            self._twice(name)
        with out:
            while chunk := content.read(_CHUNK):
                self._bytes_left -= len(chunk)
                if self._bytes_left < 0:
                    _too_large(self.archive, name)
                out.write(chunk)
        path.chmod(0o700 if executable else 0o600)
        self._files[_plain(name)] = path

    def link(self, name: str, target: str) -> None:
        """A symbolic link; :meth:`link_all` makes it."""
        path = self._place(name)
        if path in self.links:
            self._twice(name)
        self.links[path] = (name, target)

    def copy(self, name: str, source: str) -> None:
        """Another name of a file that came before."""
        place = self._files.get(_plain(source))
        if place is None:
            self.refuse(name, f"is a hard link to {source!r}, which is no file before it")
        with place.open("rb") as content:
            self.file(name, content, executable=bool(place.stat().st_mode & 0o100))

    def link_all(self) -> None:
        """Make the links; their folders first, so that none of those is a link."""
        for path, (name, _) in self.links.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                self._twice(name)
        for path, (name, target) in self.links.items():
            try:
                path.symlink_to(target)
            except FileExistsError:
                self._twice(name)
        for path, (name, target) in self.links.items():
            try:
                end = path.resolve(strict=True)
            except (OSError, RuntimeError):
                self.refuse(name, f"is a link to {target!r}, which leads nowhere in the archive")
            if not end.is_relative_to(self.root):
                self.refuse(name, f"is a link to {target!r}, out of the archive")

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise UserError."""
        _refuse(self.archive, name, why)

    def _place(self, name: str) -> Path:
        self._entries_left -= 1
        if self._entries_left < 0:
            self.refuse(name, f"is one of more than {MAX_ENTRIES} entries, the limit; {_LESS}")
        plain = _plain(name)
        try:
            return self.root / safe_path(plain) if plain else self.root
        except UnicodeEncodeError:
            self.refuse(name, "has a name that is not UTF-8")
        except ValueError as error:
            self.refuse(name, f"has a name that is not taken: {error}")

    def _twice(self, name: str) -> NoReturn:
        self.refuse(name, "is there twice, or as a file and a folder; pack it once")


def _plain(name: str) -> str:
    """Without the ``./`` before and the ``/`` behind it that archives have."""
    while name.startswith("./"):
        name = name[2:]
    name = name.removesuffix("/")
    return "" if name == "." else name


def _tar(archive: Path, layout: _Layout, plain: Path) -> None:
    """``plain`` is where it lies without its compression, whose sums have been compared then."""
    left = MAX_BYTES + MAX_ENTRIES * _HEADERS_BYTES
    with _decompressed(archive) as source, plain.open("wb") as out:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                _too_large(archive, None)
            out.write(chunk)
    with plain.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isdir():
                layout.folder(member.name)
            elif member.issym():
                layout.link(member.name, member.linkname)
            elif member.islnk():
                layout.copy(member.name, member.linkname)
            elif member.isreg() and member.size >= 0 and (content := tar.extractfile(member)):
                layout.file(member.name, content, executable=bool(member.mode & 0o100))
            else:
                kind = _KINDS.get(member.type, f"of an unknown kind ({member.type!r})")
                layout.refuse(member.name, f"is {kind}; only files, folders and links are taken")
        # A library that reads on is satisfied with whatever it can read.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            _refuse(archive, None, "has no end: it is damaged; pack or fetch it again")
    plain.unlink()


def _decompressed(archive: Path) -> BufferedIOBase:
    with archive.open("rb") as file:
        first = file.read(max(map(len, _COMPRESSED)))
    for magic, opened in _COMPRESSED.items():
        if first.startswith(magic):
            return opened(archive)
    return archive.open("rb")


def _zip(archive: Path, layout: _Layout) -> None:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
            if info.flag_bits & _ENCRYPTED:
                layout.refuse(info.filename, "is encrypted; pack it without a password")
            if info.is_dir() or stat.S_ISDIR(mode):
                layout.folder(info.filename)
                continue
            if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFLNK}:
                layout.refuse(info.filename, "is neither a file, a folder nor a link")
            with packed.open(info) as content:
                if not stat.S_ISLNK(mode):
                    layout.file(info.filename, content, executable=bool(mode & 0o100))
                    continue
                target = content.read(_MAX_LINK_BYTES + 1)
            if len(target) > _MAX_LINK_BYTES:
                layout.refuse(info.filename, f"is a link of more than {_MAX_LINK_BYTES} bytes")
            layout.link(info.filename, target.decode())


def _too_large(archive: Path, name: str | None) -> NoReturn:
    above = f"more than {size_text(MAX_BYTES)}, the limit of a build context; {_LESS}"
    _refuse(archive, name, f"{'unpacks' if name is None else 'makes it unpack'} to {above}")


def _refuse(archive: Path, name: str | None, why: str) -> NoReturn:
    entry = "" if name is None else f"{name.encode('utf-8', 'backslashreplace').decode()[:200]!r} "
    raise UserError(
        f"path: {archive.name!r}: {entry}{why}.", code="env.build_context", field="path"
    )
