"""Registered models: versions, their files, tags and where they come from."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stellwerk import labels
from stellwerk.answers import FileList
from stellwerk.api import ModelLineage, ModelPatch, ModelRequest, ModelView, RunFileView
from stellwerk.client import file_path, segment
from stellwerk.config import discover
from stellwerk.downloads import RemoteFile, download, inside
from stellwerk.errors import UserError
from stellwerk.localfiles import LocalFile, hashed, local_file, manifest_of, tree
from stellwerk.refusals import naming_the_field
from stellwerk.uploads import upload

if TYPE_CHECKING:
    from stellwerk.dataset import FileDataset
    from stellwerk.workspace import Workspace


Files = list[RunFileView]  # within Model, list is a method
TagNames = list[str]


class Model:
    """A model version. ``Model(workspace, "name")`` is the latest; raises NotFoundError."""

    def __init__(
        self,
        workspace: "Workspace",
        name: str | None = None,
        id: str | None = None,  # noqa: A002 - v1's name
        version: int | None = None,
    ) -> None:
        if id is not None:
            name, _, number = id.rpartition(":")
            if not name or not number.isdigit():
                raise UserError(f"id: got {id!r}; it looks like name:version", field="id")
            version = int(number)
        if not name:
            raise UserError("name: give the model's name, or its id", field="name")
        params = {"version": version}
        self._workspace = workspace
        self._view = workspace.client.get(f"/models/{segment(name)}", ModelView, params)

    @classmethod
    def of_view(cls, workspace: "Workspace", view: ModelView) -> Self:
        """The platform's answer as an object."""
        model = object.__new__(cls)
        model._workspace, model._view = workspace, view
        return model

    @classmethod
    def register(
        cls,
        workspace: "Workspace",
        model_path: str,
        model_name: str,
        tags: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        description: str | None = None,
        datasets: "list[tuple[str, FileDataset]] | None" = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
    ) -> Self:
        """Make a model version of a local file or folder, stored under its own last name."""
        files = hashed(_local_files(Path(model_path)))
        upload(workspace.client, files, label=f"Model {model_name}", show=sys.stderr.isatty())
        with naming_the_field():
            request = ModelRequest(
                name=model_name,
                manifest=manifest_of(files),
                description=description,
                tags=labels.texts(tags),
                properties=labels.texts(properties),
                framework=model_framework,
                framework_version=model_framework_version,
                datasets={role: dataset.id for role, dataset in datasets or ()},
            )
        view = workspace.client.call("POST", "/models", ModelView, body=request)
        return cls.of_view(workspace, view)

    @classmethod
    def list(
        cls,
        workspace: "Workspace",
        name: str | None = None,
        tags: "list[str | list[str]] | None" = None,
        properties: "list[str | list[str]] | None" = None,
        run_id: str | None = None,
        latest: bool = False,
    ) -> "list[Self]":
        """Model versions, newest first; a tag is a text (has it) or a pair (has this value).

        So is a property.

        ``latest``: only the newest version of each name.
        """
        wanted, having = labels.pairs(tags), labels.pairs(properties)
        params = {"name": name, "tag": labels.first(wanted), "run_id": run_id}
        views = [
            view
            for view in workspace.client.pages("/models", ModelView, params)
            if labels.fits(view.tags, wanted) and labels.fits(view.properties, having)
        ]
        if latest:
            newest = {v.name: v for v in sorted(views, key=lambda view: view.version)}
            views = [*newest.values()]
        return [cls.of_view(workspace, view) for view in views]

    @staticmethod
    def get_model_path(
        model_name: str, version: int | None = None, _workspace: "Workspace | None" = None
    ) -> str:
        """Where the model's files are on this machine; fetched once if they are not there yet."""
        base = Path(os.environ.get("AZUREML_MODEL_DIR") or "azureml-models") / model_name
        if version is None and base.is_dir():
            numbers = [int(each.name) for each in base.iterdir() if each.name.isdigit()]
            version = max(numbers, default=None)
        if version is not None and (base / str(version)).is_dir():
            return str(_single(base / str(version)))
        if Path(model_name).exists():
            return model_name
        from stellwerk.workspace import Workspace  # noqa: PLC0415 - workspace imports this module

        model = Model(_workspace or Workspace.of(discover()), model_name, version=version)
        return model.download(str(base / str(model.version)), exist_ok=True)

    def __repr__(self) -> str:
        return f"Model(workspace={self._workspace!r}, name={self.name}, version={self.version})"

    @property
    def name(self) -> str:
        """The model's name."""
        return self._view.name

    @property
    def version(self) -> int:
        """The version, from 1."""
        return self._view.version

    @property
    def id(self) -> str:
        """``name:version``."""
        return f"{self.name}:{self.version}"

    @property
    def description(self) -> str | None:
        """The description."""
        return self._view.description

    @property
    def tags(self) -> dict[str, str | None]:
        """The tags as last seen."""
        return dict(self._view.tags)

    @property
    def properties(self) -> dict[str, str | None]:
        """The properties as last seen."""
        return dict(self._view.properties)

    @property
    def run_id(self) -> str | None:
        """The run it was made from."""
        return self._view.lineage.run_id

    @property
    def lineage(self) -> ModelLineage:
        """Run, dataset versions, environment and source it was made from."""
        return self._view.lineage

    @property
    def view(self) -> ModelView:
        """What the platform said last."""
        return self._view

    def files(self) -> Files:
        """The model's files."""
        return [*self._workspace.client.get(f"{self._path}/files", FileList).files]

    def download(
        self,
        target_dir: str = ".",
        exist_ok: bool = False,
        exists_ok: bool | None = None,
        *,
        show_progress: bool = False,
    ) -> str:
        """Fetch the files and return the path of the model's file or folder.

        Raises ConflictError where a file exists already and not ``exist_ok``.
        """
        folder = Path(target_dir)
        files = self.files()
        wanted = [
            RemoteFile(
                f"{self._path}/files/{file_path(each.path)}",
                inside(folder, each.path),
                each.size,
                each.sha256,
            )
            for each in files
        ]
        overwrite = exist_ok if exists_ok is None else exists_ok
        download(
            self._workspace.client,
            wanted,
            overwrite=overwrite,
            label=f"Model {self.id}",
            show=show_progress,
        )
        tops = {each.path.split("/", 1)[0] for each in files}
        return str(folder / tops.pop() if len(tops) == 1 else folder)

    def update(self, tags: dict[str, Any] | None = None, description: str | None = None) -> None:
        """Replace the tags (None leaves them) and the description (None leaves it)."""
        removed = tuple(each for each in self.tags if tags is not None and each not in tags)
        self._patch(tags=labels.texts(tags), remove_tags=removed, description=description)

    def add_tags(self, tags: dict[str, Any]) -> None:
        """Set tags; others stay."""
        self._patch(tags=labels.texts(tags))

    def remove_tags(self, tags: TagNames) -> None:
        """Remove tags."""
        self._patch(remove_tags=tuple(tags))

    def add_properties(self, properties: dict[str, Any]) -> None:
        """Add properties; they never change."""
        self._patch(properties=labels.texts(properties))

    def delete(self) -> None:
        """Remove this version."""
        self._workspace.client.call("DELETE", self._path, ModelView)

    def _patch(self, **change: Any) -> None:
        with naming_the_field():
            patch = ModelPatch(**change)
        self._view = self._workspace.client.call("PATCH", self._path, ModelView, body=patch)

    @property
    def _path(self) -> str:
        return f"/models/{segment(self.name)}/versions/{self.version}"


def _local_files(path: Path) -> Iterator[LocalFile]:
    if path.is_dir():
        name = path.resolve().name
        for each in tree(path):
            yield LocalFile(each.path, f"{name}/{each.name}", each.size)
    else:
        yield local_file(path, path.name)


def _single(folder: Path) -> Path:
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 else folder
