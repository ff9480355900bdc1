"""A source folder as a snapshot: what belongs to it, and its upload.

``.amlignore`` decides what stays out, ``.gitignore`` where there is none; both in the root of the
folder, with git's syntax. Some names always stay out. Links may point within the folder only.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

from stellwerk.api import SnapshotRequest, SnapshotView
from stellwerk.client import Client
from stellwerk.config import SUPERVISOR_LOCK
from stellwerk.errors import UserError
from stellwerk.localfiles import LocalFile, hashed, manifest_of
from stellwerk.sizes import size_text
from stellwerk.uploads import upload

MAX_FILES = 2000
MAX_BYTES = 300_000_000
ALWAYS_OUT = frozenset(
    {
        ".azureml",
        ".git",
        ".ipynb_checkpoints",
        ".stellwerk",
        ".venv",
        "__pycache__",
        "azureml-logs",
        "azureml-setup",
        "outputs",
    }
)
MARKS_OUT = (SUPERVISOR_LOCK, "pyvenv.cfg")
"""A folder with one of these stays out: a platform's data, with its keys; a virtual environment."""
_COUNT_UP_TO = 50_000  # a home folder taken by mistake must not be walked for minutes

_SPECIAL = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def collect(folder: Path, shown: str | None = None) -> list[LocalFile]:
    """The files of a snapshot of ``folder``, sorted by name.

    ``shown`` is what errors call the folder, None: its path.
    Raises UserError: source.missing, source.platform, source.link, source.type,
    source.unreadable, source.too_large.
    """
    if not folder.is_dir():
        raise UserError(
            f"source_directory: {str(folder)!r} is not a folder",
            code="source.missing",
            field="source_directory",
        )
    root = folder.resolve()
    if (root / SUPERVISOR_LOCK).exists():
        raise UserError(
            f"source_directory: {str(folder)!r} is the data folder of a platform, with keys; put "
            "the script into a folder of its own",
            code="source.platform",
            field="source_directory",
        )
    files = []
    for each in _walk(root, root, "", _ignored(root), ()):
        files.append(each)
        if len(files) >= _COUNT_UP_TO:
            break
    _check_limits(shown or str(folder), files)
    return sorted(files, key=lambda each: each.name)


def upload_snapshot(
    client: Client, folder: Path, *, show: bool = False, shown: str | None = None
) -> SnapshotView:
    """Upload what the store lacks of ``folder`` and store the list of its files.

    ``shown`` is what errors call the folder, None: its path.
    """
    files = hashed(collect(folder, shown))
    manifest = manifest_of(files)
    upload(client, files, label="Source upload", show=show)
    request = SnapshotRequest(manifest=manifest)
    return client.call("POST", "/snapshots", SnapshotView, body=request)


def _ignored(root: Path) -> GitIgnoreSpec:
    for name in (".amlignore", ".gitignore"):
        try:
            lines = (root / name).read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeError) as error:
            raise UserError(
                f"{name} cannot be read: {error}", code="source.unreadable", field=name
            ) from error
        return GitIgnoreSpec.from_lines(lines)
    return GitIgnoreSpec.from_lines([])


def _walk(
    folder: Path, root: Path, prefix: str, ignored: GitIgnoreSpec, above: tuple[Path, ...]
) -> Iterator[LocalFile]:
    try:
        entries = sorted(os.scandir(folder), key=lambda each: each.name)
    except OSError as error:
        raise _refused(prefix or ".", f"cannot be read: {error.strerror}", "unreadable") from error
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if entry.name in ALWAYS_OUT or ignored.match_file(name):
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            path = _within(path, root, name)
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            if ignored.match_file(name + "/") or any((path / mark).exists() for mark in MARKS_OUT):
                continue
            here = path.resolve()
            if here in above or here == root:
                raise _refused(name, "is a link to a folder that contains it", "link")
            yield from _walk(path, root, name + "/", ignored, (*above, here))
        elif stat.S_ISREG(mode):
            yield LocalFile(path, name, path.stat().st_size)
        else:
            kind = _SPECIAL.get(stat.S_IFMT(mode), "no regular file")
            raise _refused(name, f"is {kind}; only files and folders can be uploaded", "type")


def _within(path: Path, root: Path, name: str) -> Path:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise _refused(name, "is a link that leads nowhere", "link") from error
    if not target.is_relative_to(root):
        raise _refused(name, f"is a link out of the source folder, to {target}", "link")
    return target


def _refused(name: str, why: str, kind: str) -> UserError:
    shown = name.encode("utf-8", "backslashreplace").decode()
    return UserError(
        f"source_directory: {shown!r} {why}. Remove it or exclude it in .amlignore.",
        code=f"source.{kind}",
        field="source_directory",
    )


def _check_limits(folder: str, files: list[LocalFile]) -> None:
    size = sum(each.size for each in files)
    if len(files) <= MAX_FILES and size <= MAX_BYTES:
        return
    by_count: Counter[str] = Counter()
    by_size: Counter[str] = Counter()
    for each in files:
        top = each.name.split("/", 1)[0] + ("/" if "/" in each.name else "")
        by_count[top] += 1
        by_size[top] += each.size
    if len(files) > MAX_FILES:
        got = f"{len(files)} files" if len(files) < _COUNT_UP_TO else f"over {len(files)} files"
        limit = f"{MAX_FILES} files"
        biggest = [f"{name} {count} files" for name, count in by_count.most_common(5)]
    else:
        got, limit = size_text(size), size_text(MAX_BYTES)
        biggest = [f"{name} {size_text(count)}" for name, count in by_size.most_common(5)]
    raise UserError(
        f"source_directory: {folder!r} holds {got}; the limit of a source snapshot is "
        f"{limit}. Biggest: {', '.join(biggest)}. Exclude what the script does not need in "
        ".amlignore (git's syntax), and give data to the run as a dataset.",
        code="source.too_large",
        field="source_directory",
    )
