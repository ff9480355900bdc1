"""Datasets made of others: a table of the same files, or some of the files. Pure.

The id follows from the id of the dataset it is made of, so what is derived twice is the same.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from stellwerk.errors import NotFoundError, UserError
from stellwerk.ids import derived_id
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk.tabular_definition import TabularDefinition
from stellwerk_dataset.domain import Dataset, WebFile, web_manifest

MAX_DEFINITION_BYTES = 256 * 1024


def as_table(base: Dataset, definition: TabularDefinition) -> Dataset:
    """``base``'s files read as ``definition`` says; of a table it replaces the definition."""
    kept = definition.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    if len(text) > MAX_DEFINITION_BYTES:
        raise UserError(
            f"tabular: the definition is {len(text)} bytes; the limit is {MAX_DEFINITION_BYTES}. "
            "Write the result to files (to_csv_files) and make a dataset of them.",
            code="dataset.definition",
            field="tabular",
        )
    files_id = base.files_id or base.id
    identity = derived_id("dataset", "tabular", files_id, text)
    return replace(base, id=identity, files_id=files_id, definition=kept)


def part_of_files(
    base: Dataset, manifest: Manifest, paths: Sequence[str]
) -> tuple[Dataset, Manifest]:
    """The files of a pinned dataset at ``paths``."""
    by_path = {entry.path: entry for entry in manifest.entries}
    chosen: list[ManifestEntry] = [by_path[path] for path in _known(paths, by_path)]
    part = Manifest(entries=tuple(sorted(chosen, key=lambda entry: entry.path)))
    dataset = replace(_part(base, paths), manifest=part.digest(), bytes=part.size)
    return dataset, part


def part_of_web(
    base: Dataset, files: Sequence[WebFile], paths: Sequence[str]
) -> tuple[Dataset, list[WebFile], Manifest | None]:
    """The web files of a dataset at ``paths``; the manifest is None while one is unread."""
    by_path = {file.path: file for file in files}
    chosen = [by_path[path] for path in _known(paths, by_path)]
    manifest = web_manifest(chosen)
    dataset = _part(base, paths)
    if manifest is not None:
        dataset = replace(dataset, manifest=manifest.digest(), bytes=manifest.size)
    return dataset, chosen, manifest


def _part(base: Dataset, paths: Sequence[str]) -> Dataset:
    wanted = sorted(set(paths))
    return Dataset(
        id=derived_id("dataset", "part", base.files_id or base.id, *wanted),
        kind=base.kind,
        source=f"{len(wanted)} of {base.files} files of {base.source}",
        files=len(wanted),
        single_file=False,
    )


def _known(paths: Sequence[str], known: Iterable[str]) -> list[str]:
    wanted = sorted(set(paths))
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise NotFoundError(
            f"source.paths: the dataset has no file {missing[0]!r} ({len(missing)} of "
            f"{len(wanted)} paths)",
            code="file.not_found",
            field="source.paths",
        )
    return wanted
