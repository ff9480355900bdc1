"""What rclone asks of us, answered: folders of a manifest as WebDAV listings, HTTP heads. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from stellwerk.manifest import Manifest, ManifestEntry

LONG_AGO = formatdate(0, usegmt=True)
"""Content under a digest never changes, and nobody knows when it was made."""
MAX_BODY_BYTES = 64 * 1024


class RequestError(Exception):
    """Not a request that we understand."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower case; ``path`` is decoded, without slashes around it."""

    method: str
    path: str
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, head: bytes) -> "Request":
        """From the bytes up to the empty line. Raises RequestError."""
        first, *rest = head.decode("latin-1").split("\r\n")
        try:
            method, target, _ = first.split(" ")
            fields = dict(line.split(":", 1) for line in rest if line)
        except ValueError as error:
            raise RequestError(f"malformed request {first[:80]!r}") from error
        headers = {name.strip().lower(): value.strip() for name, value in fields.items()}
        return cls(method, unquote(target.partition("?")[0]).strip("/"), headers)

    @property
    def body_bytes(self) -> int:
        """How many bytes follow. Raises RequestError."""
        text = self.headers.get("content-length", "0")
        if not text.isdigit() or int(text) > MAX_BODY_BYTES:
            raise RequestError(f"content-length {text[:20]!r}")
        return int(text)

    def range_of(self, size: int) -> tuple[int, int] | None:
        """First byte and the one after the last that are wanted; None: there are none such."""
        text = self.headers.get("range")
        if text is None:
            return 0, size
        first, dash, last = text.removeprefix("bytes=").partition("-")
        if not dash or not (first or last) or not (first + last).isdigit():
            return None
        if not first:
            return max(0, size - int(last)), size
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        return (start, stop) if start < stop else None


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of one manifest by folder."""

    files: Mapping[str, ManifestEntry]
    folders: Mapping[str, tuple[str, ...]] = field(repr=False)

    @classmethod
    def of(cls, manifest: Manifest) -> "Tree":
        """Made once for each mount."""
        folders: dict[str, dict[str, None]] = {"": {}}
        for entry in manifest.entries:
            path = entry.path
            while path:
                folder = path.rpartition("/")[0]
                folders.setdefault(folder, {})[path] = None
                path = folder
        listed = {name: tuple(paths) for name, paths in folders.items()}
        return cls({entry.path: entry for entry in manifest.entries}, listed)

    def listing(self, path: str, *, deep: bool) -> bytes | None:
        """The properties of ``path`` and, if ``deep``, of what lies in it; None: not there."""
        if path not in self.files and path not in self.folders:
            return None
        paths = [path, *(self.folders.get(path, ()) if deep else ())]
        return _multistatus(self._properties(each) for each in paths)

    def _properties(self, path: str) -> str:
        entry = self.files.get(path)
        kind = "" if entry else "<D:collection/>"
        size = f"<D:getcontentlength>{entry.size}</D:getcontentlength>" if entry else ""
        href = escape(quote(f"/{path}" if entry or not path else f"/{path}/"))
        return (
            f"<D:response><D:href>{href}</D:href><D:propstat><D:prop>"
            f"<D:resourcetype>{kind}</D:resourcetype>{size}"
            f"<D:getlastmodified>{LONG_AGO}</D:getlastmodified>"
            "</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        )


def _multistatus(responses: Iterable[str]) -> bytes:
    inside = "".join(responses)
    head = '<?xml version="1.0" encoding="utf-8"?><D:multistatus xmlns:D="DAV:">'
    return f"{head}{inside}</D:multistatus>".encode()


def head(status: str, headers: Mapping[str, str], length: int) -> bytes:
    """The head of an answer."""
    fields = {"Content-Length": str(length), **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
