"""Datasets: ways to make and to find them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stellwerk.abstract_dataset import AbstractDataset
from stellwerk.api import DatasetFiles, DatasetRequest, DatasetView
from stellwerk.client import Client, segment
from stellwerk.datapath import DataPath
from stellwerk.dataset_consumption import DatasetConsumptionConfig
from stellwerk.dataset_paths import DatasetPath, source_of
from stellwerk.datastore import Datastore
from stellwerk.errors import NotFoundError, UserError
from stellwerk.file_dataset import FileDataset
from stellwerk.localfiles import LocalFile, hashed, local_file, manifest_of, tree
from stellwerk.tabular_dataset import TabularDataset
from stellwerk.tabular_factory import TabularDatasetFactory
from stellwerk.uploads import upload

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

__all__ = [
    "AbstractDataset",
    "Dataset",
    "DatasetConsumptionConfig",
    "FileDataset",
    "FileDatasetFactory",
    "TabularDataset",
    "TabularDatasetFactory",
]


class FileDatasetFactory:
    """``Dataset.File``."""

    @staticmethod
    def from_files(
        path: DatasetPath | Sequence[DatasetPath],
        validate: bool = True,  # noqa: ARG004 - v1's; addresses are checked when it is saved
    ) -> FileDataset:
        """A dataset of web addresses, or of paths and globs of a datastore."""
        client, source = source_of(path)
        return FileDataset(client=client, request=DatasetRequest(source=source))

    @staticmethod
    def from_local(
        workspace: "Workspace", paths: Sequence[str], show_progress: bool = False
    ) -> FileDataset:
        """A dataset of local files and folders (beyond v1): no datastore path, only content."""
        return upload_local(workspace.client, paths, show=show_progress)

    @staticmethod
    def upload_directory(
        src_dir: str,
        target: DataPath | tuple[Datastore, str] | Datastore,
        pattern: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> FileDataset:
        """Upload a folder to a datastore, and the dataset of what lies there."""
        if isinstance(target, tuple):
            target = DataPath(*target)
        place = target if isinstance(target, DataPath) else target.path()
        uploaded = place.datastore.upload(
            src_dir, place.path_on_datastore, overwrite, show_progress, pattern
        )
        return FileDatasetFactory.from_files(uploaded)


class Scenario:
    """What a dataset was used for, in a model's lineage."""

    TRAINING = "training"
    VALIDATION = "validation"
    INFERENCE = "inference"


class Dataset:
    """Ways to get a dataset. What is found is a FileDataset or a TabularDataset."""

    Scenario = Scenario
    File = FileDatasetFactory
    Tabular = TabularDatasetFactory

    @staticmethod
    def get_by_name(
        workspace: "Workspace", name: str, version: int | str = "latest"
    ) -> FileDataset | TabularDataset:
        """A registered dataset. Raises NotFoundError."""
        params = {} if version == "latest" else {"version": str(version)}
        try:
            view = workspace.client.get(f"/datasets/by-name/{segment(name)}", DatasetView, params)
        except NotFoundError as error:
            raise NotFoundError(
                f"Cannot find dataset registered with name {name!r} (version: {version}) in the "
                f"workspace: {error.message}",
                code=error.code,
                field="name",
            ) from error
        return dataset_of(workspace.client, view)

    @staticmethod
    def get_by_id(workspace: "Workspace", id: str) -> FileDataset | TabularDataset:  # noqa: A002
        """A dataset by its id. Raises NotFoundError."""
        view = workspace.client.get(f"/datasets/{segment(id)}", DatasetView)
        return dataset_of(workspace.client, view)

    @staticmethod
    def get_all(workspace: "Workspace") -> dict[str, FileDataset | TabularDataset]:
        """The latest version of every registered dataset, by name."""
        views = workspace.client.pages("/datasets", DatasetView)
        return {view.name: dataset_of(workspace.client, view) for view in views if view.name}


def dataset_of(client: Client, view: DatasetView) -> FileDataset | TabularDataset:
    """The object of a view."""
    kind = FileDataset if view.tabular is None else TabularDataset
    return kind(client=client, view=view)


def upload_local(client: Client, paths: Sequence[str], *, show: bool = False) -> FileDataset:
    """A dataset of local files and folders; their contents are uploaded."""
    found: list[LocalFile] = []
    for each in map(Path, paths):
        found += tree(each) if each.is_dir() else [local_file(each, each.name)]
    if not found:
        raise UserError("path: there is no file to upload", field="path")
    files = hashed(found)
    upload(client, files, label="Dataset upload", show=show)
    source = DatasetFiles(entries=manifest_of(files).entries)
    return FileDataset(client=client, request=DatasetRequest(source=source))
