"""Datasets of files."""

from random import Random
from typing import TYPE_CHECKING

from stellwerk.abstract_dataset import AbstractDataset
from stellwerk.api import DatasetPart, DatasetRequest
from stellwerk.dataset_mount import MountContext
from stellwerk.errors import UserError

if TYPE_CHECKING:
    from stellwerk.dataset_consumption import DatasetConsumptionConfig


class FileDataset(AbstractDataset):
    """Files under one id."""

    def mount(self, mount_point: str | None = None) -> MountContext:
        """A read-only view of the files in a local folder, for as long as it is entered."""
        return MountContext(self, mount_point)

    def as_mount(
        self, path_on_compute: str | None = None, *, lazy: bool | None = None
    ) -> "DatasetConsumptionConfig":
        """Let a run see the files, read-only.

        With ``lazy`` they are fetched when the run reads them, without it before it starts; by
        default (None) its node chooses by size and says why in ``azureml-logs/65_job_prep.txt``.
        """
        return self.as_named_input(self.input_name()).as_mount(path_on_compute, lazy=lazy)

    def as_download(self, path_on_compute: str | None = None) -> "DatasetConsumptionConfig":
        """Give a run its own copy of the files."""
        return self.as_named_input(self.input_name()).as_download(path_on_compute)

    def as_hdfs(self) -> "DatasetConsumptionConfig":
        """Refuse: there is no Spark."""
        return self.as_named_input(self.input_name()).as_hdfs()

    def take(self, count: int) -> "FileDataset":
        """The first ``count`` files by path."""
        return self._of(self._paths()[: _positive(count)])

    def skip(self, count: int) -> "FileDataset":
        """All files but the first ``count`` by path."""
        return self._of(self._paths()[_positive(count) :])

    def random_split(
        self, percentage: float, seed: int | None = None
    ) -> tuple["FileDataset", "FileDataset"]:
        """Two datasets: each file is in the first with probability ``percentage`` (0 to 1)."""
        if not 0 <= percentage <= 1:
            raise UserError(
                f"percentage: got {percentage}; give a number from 0 to 1", field="percentage"
            )
        chance = Random(seed)  # noqa: S311 - a sample, not a secret
        paths = self._paths()
        first = [path for path in paths if chance.random() < percentage]
        return self._of(first), self._of([path for path in paths if path not in set(first)])

    def _paths(self) -> list[str]:
        return sorted(each.path for each in self.files())

    def _of(self, paths: list[str]) -> "FileDataset":
        if not paths:
            raise UserError("no file is left; a dataset has at least one", code="dataset.empty")
        part = DatasetPart(dataset_id=self.id, paths=tuple(paths))
        return FileDataset(client=self._client, request=DatasetRequest(source=part))


def _positive(count: int) -> int:
    if count < 1:
        raise UserError(f"count: got {count}; give at least 1", field="count")
    return count
