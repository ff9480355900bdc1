"""What a model is: pure rules of paths, labels and lineage. No I/O, no clock.

A model is registered from a completed run's files or from uploaded blobs. Its files are relative
to the parent of the registered path, as in the v1 SDK: ``outputs/model`` gives ``model/…``.
Files are only listed and addressed by digest, never opened.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable

from stellwerk.api import ModelPatch, ModelRequest
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.manifest import Manifest

MAX_LABELS = 200
MAX_LABEL_LENGTH = 4096
FILES_NAMED = 20

Labels = dict[str, str | None]


def check_request(request: ModelRequest) -> None:
    """Raise UserError unless the request has one origin and bounded labels."""
    if (request.run_id is None) == (request.manifest is None):
        raise UserError(
            "model: give exactly one of run_id (files of a completed run) and manifest "
            "(uploaded files)",
            code="model.source",
            field="run_id",
        )
    if request.manifest is not None and not request.manifest.entries:
        raise UserError("manifest: a model needs at least one file", field="manifest")
    check_labels("tags", request.tags)
    check_labels("properties", request.properties)


def fingerprint(request: ModelRequest) -> str:
    """What tells two requests apart: equal for a repeat."""
    content = request.model_dump(mode="json", include=set(ModelRequest.model_fields))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def normal_path(path: str) -> str:
    """``./outputs/x/`` as ``outputs/x``; UserError for a path that leads out."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if path.startswith("/") or ".." in parts or not parts:
        raise UserError(
            f"path: got {path[:200]!r}; give a file or folder of the run, for example "
            "'outputs/model'",
            code="model.path",
            field="path",
        )
    return "/".join(parts)


def chosen_files(outputs: Manifest, path: str, run_id: str) -> Manifest:
    """The file or folder ``path`` of a run, relative to its parent."""
    chosen = outputs.under(path)
    if not chosen.entries:
        raise NotFoundError(
            f"path: run {run_id!r} has no file or folder {path!r}; {available(outputs)}",
            code="model.path_not_found",
            field="path",
        )
    parent = path.rpartition("/")[0]
    prefix = f"{parent}/" if parent else ""
    return Manifest(
        entries=tuple(
            entry.model_copy(update={"path": entry.path.removeprefix(prefix)})
            for entry in chosen.entries
        )
    )


def available(outputs: Manifest) -> str:
    """The files of a run in words, at most 20 of them."""
    paths = sorted(entry.path for entry in outputs.entries)
    if not paths:
        return "it has no files; write them to ./outputs or use run.upload_file"
    more = f" and {len(paths) - FILES_NAMED} more" if len(paths) > FILES_NAMED else ""
    return f"it has {', '.join(paths[:FILES_NAMED])}{more}"


def patched_labels(patch: ModelPatch, tags: Labels, properties: Labels) -> tuple[Labels, Labels]:
    """Tags and properties after a patch. Properties can be added, never changed."""
    changed = {
        name for name, text in patch.properties.items() if properties.get(name, text) != text
    }
    if changed:
        raise ConflictError(
            f"properties: {min(changed)!r} has a value already and properties never change; "
            "use a tag for what changes",
            code="model.property_immutable",
            field="properties",
        )
    merged = {name: text for name, text in tags.items() if name not in patch.remove_tags}
    merged |= patch.tags
    kept = {**properties, **patch.properties}
    check_labels("tags", merged)
    check_labels("properties", kept)
    return merged, kept


def check_labels(field: str, labels: Labels) -> None:
    """Raise UserError for too many or too long labels."""
    longest = max((len(text or "") for text in labels.values()), default=0)
    if len(labels) > MAX_LABELS or longest > MAX_LABEL_LENGTH:
        raise UserError(
            f"{field}: got {len(labels)}, the longest with {longest} characters; the limits are "
            f"{MAX_LABELS} and {MAX_LABEL_LENGTH} characters",
            code="model.labels",
            field=field,
        )


def near_names(name: str, known: Iterable[str]) -> str:
    """A hint with up to three similar names, or ''."""
    folded = {text.casefold(): text for text in known}
    near = difflib.get_close_matches(name.casefold(), list(folded), 3, 0.6)
    return f"; did you mean {', '.join(repr(folded[text]) for text in near)}?" if near else ""
