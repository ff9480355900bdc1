"""What completed runs leave as outputs becomes datasets: one transaction for a run."""

from collections.abc import Mapping

from stellwerk.api import DatasetRegisterRequest
from stellwerk.errors import UserError
from stellwerk.events import DatasetProduced, Envelope, ProducedDataset, RunCompleted
from stellwerk.manifest import Manifest
from stellwerk.runspec import DatasetOutput
from stellwerk_dataset.derived import as_table
from stellwerk_dataset.domain import PathPattern, from_paths
from stellwerk_dataset.waiting import CONSUMER
from stellwerk_dataset.writes import keep_dataset, put_files, register_version
from stellwerk_kit.db import Database, Tx


class ProducingStore:
    """Transactions on outputs of runs."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def produce(
        self, envelope: Envelope, event: RunCompleted, manifests: Mapping[str, Manifest]
    ) -> None:
        """Give the files of each output their place and make them datasets.

        ``manifests``: the files by output. An output that cannot be kept costs the run a warning,
        not its success.
        """

        def work(tx: Tx) -> None:
            if not tx.first_time(CONSUMER, envelope.id):
                return
            produced: dict[str, ProducedDataset] = {}
            warnings: list[str] = []
            for name, output in event.outputs.items():
                place = output.place(event.run_id, name)
                nothing = ProducedDataset(dataset_id=None, datastore=output.datastore, path=place)
                try:
                    produced[name] = _produce(tx, nothing, output, manifests.get(name))
                except UserError as error:
                    produced[name] = nothing
                    warnings.append(f"output {name!r} was not kept: {error.message}")
            tx.emit(
                DatasetProduced(run_id=event.run_id, outputs=produced, warnings=tuple(warnings)),
                causation_id=envelope.id,
            )

        await self._db.write(work)


def _produce(
    tx: Tx, nothing: ProducedDataset, output: DatasetOutput, manifest: Manifest | None
) -> ProducedDataset:
    """Raises UserError before anything is written."""
    place = nothing.path
    if manifest is None or not manifest.entries:
        raise UserError("the run left no file in it")
    entries = [
        entry.model_copy(update={"path": f"{place}/{entry.path}".lstrip("/")})
        for entry in manifest.entries
    ]
    dataset, _ = from_paths([(PathPattern(output.datastore, place), entries)])
    if output.tabular is not None:
        dataset = as_table(dataset, output.tabular)
    replacing = output.overwrite or output.mode == "mount"
    put_files(tx, output.datastore, entries, overwrite=replacing)
    view = keep_dataset(tx, dataset)
    if output.register_as is not None:
        wanted = output.register_as.model_dump()
        request = DatasetRegisterRequest(**wanted, create_new_version=True)
        view = register_version(tx, dataset, request)
    return nothing.model_copy(
        update={
            "dataset_id": view.dataset_id,
            "name": view.name,
            "version": view.version,
            "files": len(entries),
            "bytes": manifest.size,
        }
    )
