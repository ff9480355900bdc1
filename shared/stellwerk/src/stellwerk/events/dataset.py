"""Facts of the dataset aggregate. Owner: the dataset service.

DatasetReady and DatasetFailed are about the inputs of one run, DatasetProduced about its outputs,
so a run id is their key; DatasetRegistered is about a dataset.
"""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

from stellwerk.events.base import Event, event


class ResolvedInput(BaseModel):
    """One input pinned to a dataset version whose files are all in the object store.

    ``manifest`` is the digest of the file list (``stellwerk.manifest``), ``single_file`` tells
    that the input's path is the file itself and not its folder.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    dataset_id: str
    name: str | None
    version: int | None
    mode: Literal["mount", "download", "direct"]
    path: str | None
    manifest: str
    files: int
    bytes: int
    single_file: bool


class ProducedDataset(BaseModel):
    """What became of one output of a run.

    ``dataset_id`` is None where nothing was kept; ``name`` and ``version`` are those it was
    registered under. ``path`` is where its files lie in ``datastore``.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    dataset_id: str | None
    name: str | None = None
    version: int | None = None
    datastore: str
    path: str
    files: int = 0
    bytes: int = 0


@event(aggregate="dataset", verb="registered", owner="dataset", key="dataset_id")
class DatasetRegistered(Event):
    """A version of a named dataset exists from now on and never changes."""

    dataset_id: str
    name: str
    version: int
    files: int
    bytes: int | None = None

    def discriminator(self) -> str:
        """Name and version: one set of files may be registered under several."""
        return f"{hashlib.sha256(self.name.encode()).hexdigest()[:16]}/{self.version}"


@event(aggregate="dataset", verb="ready", owner="dataset", key="run_id")
class DatasetReady(Event):
    """All inputs of a run are pinned and can be read.

    ``warnings`` tells people what is not as the run asked for it.
    """

    run_id: str
    inputs: dict[str, ResolvedInput]
    warnings: tuple[str, ...] = ()


@event(aggregate="dataset", verb="produced", owner="dataset", key="run_id")
class DatasetProduced(Event):
    """The outputs of a completed run are datasets from now on."""

    run_id: str
    outputs: dict[str, ProducedDataset]
    warnings: tuple[str, ...] = ()


@event(aggregate="dataset", verb="failed", owner="dataset", key="run_id")
class DatasetFailed(Event):
    """An input of a run cannot be read; no retry will help."""

    run_id: str
    input: str
    code: str
    message: str
