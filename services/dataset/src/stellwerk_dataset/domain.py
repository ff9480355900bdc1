"""What a dataset is: pure rules of layout, identity and pinning. No I/O, no clock.

A dataset is immutable and its id follows from its definition. Its files appear under the folder
that contains them: the folder prefix all parts of the definition share is taken off. Web files
keep ``host/path``. A dataset whose definition names one file, and not a folder or glob, is a
``single_file``: its path is the file itself.
"""

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError

from stellwerk.api import DatasetFiles, DatasetPatch, DatastorePath
from stellwerk.errors import NotFoundError, UserError
from stellwerk.ids import derived_id
from stellwerk.manifest import Manifest, ManifestEntry, safe_path
from stellwerk_dataset.addresses import Target, parse_url

MAX_TAGS = 200
MAX_TAG_LENGTH = 4096
MAX_SENTENCES = 5
DEFAULT_DATASTORE = "workspaceblobstore"
BUILT_IN_DATASTORES = frozenset({DEFAULT_DATASTORE, "workspacefilestore"})
"""Those that are there before a file is; v1 workspaces have both."""

_MAGIC = re.compile(r"[*?\[]")
_GLOB = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]")


@dataclass(frozen=True, slots=True)
class WebFile:
    """One web address of a dataset; digest and size are None until it has been read.

    ``instead``: where it was read, if not from its own address.
    """

    path: str
    url: str
    sha256: str | None = None
    size: int | None = None
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset as it is kept. ``manifest`` and ``bytes`` are None while web files are unread.

    A table has its ``definition``, and the id of the dataset of its files.
    """

    id: str
    kind: str
    source: str
    files: int
    single_file: bool
    manifest: str | None = None
    bytes: int | None = None
    files_id: str | None = None
    definition: dict[str, Any] | None = None

    def same_content(self, other: "Dataset") -> bool:
        """Whether both hold the same files at the same paths, read in the same way."""
        if self.id == other.id:
            return True
        if self.definition != other.definition:
            return False
        pinned = self.manifest is not None and self.manifest == other.manifest
        return pinned and self.single_file == other.single_file


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A datastore path: ``path`` itself, everything in folder ``path``, or what matches a glob."""

    datastore: str
    path: str

    @classmethod
    def of(cls, request: DatastorePath) -> "PathPattern":
        """The normalised pattern; '/', '.' and '' mean the whole datastore."""
        parts = [part for part in request.path.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise UserError(
                f"source.paths: {request.path!r} has '..'; give a path inside the datastore",
                code="dataset.path",
                field="source.paths",
            )
        return cls(request.datastore, "/".join(parts))

    @property
    def prefix(self) -> str:
        """The text every match begins with."""
        magic = _MAGIC.search(self.path)
        return self.path[: magic.start()] if magic else self.path

    def choose(self, known: Sequence[ManifestEntry]) -> tuple[str, list[ManifestEntry], bool]:
        """The folder whose prefix may go, the chosen files, and whether the path names one file."""
        exact = [entry for entry in known if entry.path == self.path]
        if exact:
            return _folder(self.path), exact, True
        inside = [entry for entry in known if not self.path or _is_inside(entry.path, self.path)]
        if inside:
            return self.path, inside, False
        matches = glob_pattern(self.path)
        return (
            _folder(self.prefix),
            [entry for entry in known if matches.fullmatch(entry.path)],
            False,
        )

    def __str__(self) -> str:
        return f"{self.datastore}/{self.path}"


def glob_pattern(glob: str) -> re.Pattern[str]:
    """``*`` and ``?`` match within one part, ``**`` across parts, ``[…]`` one character."""
    result, end = "", 0
    for match in _GLOB.finditer(glob):
        result += re.escape(glob[end : match.start()])
        end = match.end()
        token = match.group()
        simple = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        result += simple.get(token) or _character_set(token)
    try:
        return re.compile(result + re.escape(glob[end:]), re.DOTALL)
    except re.error as error:
        raise UserError(f"source.paths: {glob!r} is no glob", code="dataset.path") from error


def from_files(source: DatasetFiles) -> tuple[Dataset, Manifest]:
    """Dataset of uploaded files."""
    base = source.base
    if base is None:
        base = common_folder(_folder(entry.path) for entry in source.entries)
    elif outside := [each.path for each in source.entries if not _is_inside(each.path, base)]:
        raise UserError(
            f"source.base: {outside[0]!r} is not below {base!r}",
            code="dataset.path",
            field="source.base",
        )
    manifest = make_manifest(_moved(entry, base, "") for entry in source.entries)
    single = len(manifest.entries) == 1 and source.base is None
    return _pinned("files", "files", manifest, single_file=single)


def from_paths(
    found: Sequence[tuple[PathPattern, Sequence[ManifestEntry]]],
) -> tuple[Dataset, Manifest]:
    """Dataset of what lies under datastore paths now; several datastores keep their names."""
    rooted: list[tuple[str, ManifestEntry]] = []
    bases: list[str] = []
    single = len(found) == 1
    for pattern, known in found:
        base, chosen, one_file = pattern.choose(known)
        if not chosen:
            raise NotFoundError(
                f"source.paths: nothing lies at {pattern.path or '/'!r} in datastore "
                f"{pattern.datastore!r}; upload files there first",
                code="datastore.path_not_found",
                field="source.paths",
            )
        single = single and one_file
        bases.append(f"{pattern.datastore}/{base}".rstrip("/"))
        rooted += [(pattern.datastore, entry) for entry in chosen]
    common = common_folder(bases)
    unique = dict.fromkeys(_moved(entry, common, f"{store}/") for store, entry in rooted)
    source = ", ".join(str(pattern) for pattern, _ in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return _pinned("datastore", source + more, make_manifest(unique), single_file=single)


def from_urls(
    urls: Sequence[str], allowed: frozenset[str] = frozenset()
) -> tuple[Dataset, list[WebFile]]:
    """Dataset of web addresses, not read yet. Raises UserError for one that may not be read."""
    files: dict[str, WebFile] = {}
    for index, url in enumerate(urls):
        try:
            target = parse_url(url, allowed)
            path = safe_path(web_path(target))
        except UserError as error:
            raise UserError(
                f"source.urls[{index}]: {error.message}", code=error.code, field="source.urls"
            ) from error
        except ValueError as error:
            raise UserError(
                f"source.urls[{index}]: {error}", code="url.malformed", field="source.urls"
            ) from error
        other = files.setdefault(path, WebFile(path, target.url))
        if other.url != target.url:
            raise UserError(
                f"source.urls[{index}]: another url appears as {path!r} too; make two datasets",
                code="dataset.path_conflict",
                field="source.urls",
            )
    make_manifest(ManifestEntry(path=path, size=0, sha256="0" * 64) for path in files)
    chosen = list(files.values())
    first = parse_url(chosen[0].url, allowed).shown
    source = first if len(chosen) == 1 else f"{first} and {len(chosen) - 1} more"
    identity = derived_id("dataset", "urls", *(file.url for file in chosen))
    return Dataset(identity, "urls", source, len(chosen), len(chosen) == 1), chosen


def web_path(target: Target) -> str:
    """Where a web file appears: host (with an unusual port) and path."""
    usual = target.authority.endswith((":80", ":443"))
    host = target.host if usual else f"{target.host}_{target.port}"
    parts = [unquote(part) for part in target.target.partition("?")[0].split("/")]
    name = "index.html" if not parts[-1] else parts[-1]
    return "/".join([host, *(part for part in parts[:-1] if part), name])


def web_manifest(files: Iterable[WebFile]) -> Manifest | None:
    """The manifest of web files, None while one is unread."""
    entries = []
    for file in files:
        if file.sha256 is None or file.size is None:
            return None
        entries.append(ManifestEntry(path=file.path, size=file.size, sha256=file.sha256))
    return make_manifest(entries)


def elsewhere(files: Iterable[WebFile]) -> list[str]:
    """Sentences on files that were not read from their own addresses, one for each place."""
    moved = Counter((_folder(file.url), file.instead) for file in files if file.instead)
    told = [
        f"{folder}/ ({count} file{'s' if count > 1 else ''}) was read from {instead}"
        for (folder, instead), count in moved.items()
    ]
    rest = len(told) - MAX_SENTENCES
    return told if rest <= 0 else [*told[:MAX_SENTENCES], f"and so were {rest} more folders"]


def make_manifest(entries: Iterable[ManifestEntry]) -> Manifest:
    """A manifest sorted by path; UserError where two files want the same place."""
    ordered = sorted(entries, key=lambda entry: entry.path)
    try:
        return Manifest(entries=tuple(ordered))
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise UserError(
            f"source: {reason.removeprefix('Value error, ')}; give them in two datasets",
            code="dataset.path_conflict",
            field="source",
        ) from error


def common_folder(folders: Iterable[str]) -> str:
    """The longest folder that contains all of ``folders``; '' if there is none."""
    common: list[str] | None = None
    for folder in folders:
        parts = folder.split("/") if folder else []
        if common is None:
            common = parts
        same = [a == b for a, b in zip(common, parts, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return "/".join(common or [])


def near_names(name: str, known: Iterable[str]) -> str:
    """A hint with up to three similar names, or ''."""
    folded = {text.casefold(): text for text in known}
    near = difflib.get_close_matches(name.casefold(), list(folded), 3, 0.6)
    return f"; did you mean {', '.join(repr(folded[text]) for text in near)}?" if near else ""


def patched_tags(patch: DatasetPatch, tags: dict[str, str | None]) -> dict[str, str | None]:
    """Tags after a patch. Raises UserError where they are too many or too long."""
    kept = {name: text for name, text in tags.items() if name not in patch.remove_tags}
    merged = {**kept, **patch.tags}
    check_tags(merged)
    return merged


def check_tags(tags: dict[str, str | None]) -> None:
    """Raise UserError for too many or too long tags."""
    longest = max((len(text or "") for text in tags.values()), default=0)
    if len(tags) > MAX_TAGS or longest > MAX_TAG_LENGTH:
        raise UserError(
            f"tags: got {len(tags)} tags, the longest with {longest} characters; the limits are "
            f"{MAX_TAGS} tags and {MAX_TAG_LENGTH} characters",
            code="tags.limit",
            field="tags",
        )


def _pinned(
    kind: str, source: str, manifest: Manifest, *, single_file: bool
) -> tuple[Dataset, Manifest]:
    digest = manifest.digest()
    identity = derived_id("dataset", kind, source, digest, json.dumps(single_file))
    files = len(manifest.entries)
    return Dataset(identity, kind, source, files, single_file, digest, manifest.size), manifest


def _moved(entry: ManifestEntry, base: str, root: str) -> ManifestEntry:
    path = (root + entry.path).removeprefix(f"{base}/") if base else root + entry.path
    return entry.model_copy(update={"path": path})


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _is_inside(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def _character_set(token: str) -> str:
    inner = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
    return f"[^/{inner[1:]}]" if inner.startswith("!") else f"(?!/)[{inner}]"
