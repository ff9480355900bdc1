"""How a run gets a dataset."""

import re
from typing import Literal

from stellwerk.abstract_dataset import AbstractDataset
from stellwerk.client import Client
from stellwerk.errors import UserError
from stellwerk.runspec import DatasetInput
from stellwerk.tabular_dataset import TabularDataset

ConsumptionMode = Literal["mount", "download", "direct"]

_INPUT_NAME = re.compile(r"[a-zA-Z_]\w*", re.ASCII)


class DatasetConsumptionConfig:
    """A dataset for a run under a name. Usable as a script argument.

    There it becomes the path (mount, download) or the dataset's id (direct). A path on compute
    that is absolute is taken as one below the run's folder.
    """

    def __init__(
        self,
        name: str,
        dataset: AbstractDataset,
        mode: ConsumptionMode = "direct",
        path_on_compute: str | None = None,
        *,
        lazy: bool | None = None,
    ) -> None:
        check_input_name(name)
        if mode not in {"mount", "download", "direct"}:
            raise UserError(
                f"mode: got {mode!r}; give mount, download or direct",
                code="input.mode",
                field="mode",
            )
        if isinstance(dataset, TabularDataset) and mode != "direct":
            raise UserError(
                f"mode: a tabular dataset cannot be given by {mode}; use as_named_input() alone "
                "and read it in the run with to_pandas_dataframe()",
                code="input.mode",
                field="mode",
            )
        self.name = name
        self.dataset = dataset
        self.mode = mode
        self.path_on_compute = path_on_compute
        self.lazy = lazy

    def __repr__(self) -> str:
        return f"DatasetConsumptionConfig:{self.name}"

    def as_mount(
        self, path_on_compute: str | None = None, *, lazy: bool | None = None
    ) -> "DatasetConsumptionConfig":
        """The same input, mounted. ``lazy``: see `FileDataset.as_mount`."""
        return DatasetConsumptionConfig(
            self.name, self.dataset, "mount", path_on_compute, lazy=lazy
        )

    def as_download(self, path_on_compute: str | None = None) -> "DatasetConsumptionConfig":
        """The same input, downloaded."""
        return DatasetConsumptionConfig(self.name, self.dataset, "download", path_on_compute)

    def as_direct(self) -> "DatasetConsumptionConfig":
        """The same input as the dataset itself."""
        return DatasetConsumptionConfig(self.name, self.dataset)

    def as_hdfs(self) -> "DatasetConsumptionConfig":
        """Refuse: there is no Spark."""
        raise UserError(
            "as_hdfs: Stellwerk runs no Spark; use as_mount() or as_download()", code="unsupported"
        )

    def spec(self, client: Client) -> DatasetInput:
        """The input of a run request; saves the dataset where that was not done yet."""
        view = self.dataset.saved(client)
        named = view.name is not None and view.version is not None
        path = (self.path_on_compute or "").lstrip("/")
        return DatasetInput(
            dataset=view.name if named and view.name else view.dataset_id,
            version=view.version if named else None,
            mode=self.mode,
            path=path or None,
            lazy=self.lazy,
        )


def check_input_name(name: str) -> None:
    """Raise UserError for what cannot name an input or output of a run."""
    if not isinstance(name, str) or not _INPUT_NAME.fullmatch(name):
        raise UserError(
            f"name: {name!r} cannot be an input's name; use letters, digits and '_', "
            "and no digit first",
            code="input.name",
            field="name",
        )
