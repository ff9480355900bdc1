"""Files of a run: copied at once into the upload folder, under a name that cannot leave it."""

import os
import shutil

from stellwerk_agent.errors import UserError

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from typing import IO, Any, Callable


def clean_name(name: "Any") -> str:
    """Return `name` without './', or raise UserError if it is no relative path inside a folder."""
    if not isinstance(name, str) or not name:
        raise UserError("file name %r: give a text such as 'outputs/model.keras'" % (name,))
    text = name.replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or not parts or ".." in parts or text.endswith("/"):
        raise UserError("file name %r: give a relative path of a file, without '..'" % name)
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise UserError("file name %r: control characters are not allowed" % name)
    if any(len(part.encode("utf-8")) > 255 for part in parts) or len(text) > 1024:
        raise UserError("file name %r...: at most 1024 characters, 255 bytes a part" % name[:64])
    return "/".join(parts)


def copier(name: str, source: "Any") -> "Callable[[IO[bytes]], object]":
    """Return what copies `source`, a path or an object with `read`; UserError without one."""
    if hasattr(source, "read"):
        return lambda out: shutil.copyfileobj(source, out, 1 << 20)
    if not os.path.isfile(source):
        raise UserError("file '%s': there is no file at '%s'" % (name, source))

    def copy(out: "IO[bytes]") -> None:
        with open(source, "rb") as stream:
            shutil.copyfileobj(stream, out, 1 << 20)

    return copy


class NameTakenError(UserError):
    """The run has a file of that name already."""


def fill(folder: str, name: str, write: "Callable[[IO[bytes]], object]") -> None:
    """Make file `name` under `folder` of what `write` writes.

    Raises NameTakenError if the name is taken, in this or another process of the run; OSError if
    writing fails, after which the name is free again.
    """
    target = os.path.join(folder, *name.split("/"))
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise NameTakenError("file '%s': the run has a file of that name already" % name)
    try:
        with os.fdopen(descriptor, "wb") as out:
            write(out)
    except BaseException:
        os.unlink(target)
        raise
