"""Places in a datastore: what datasets are made of, and references that runs get as folders."""

from typing import TYPE_CHECKING, Literal

from stellwerk.errors import UserError
from stellwerk.ids import derived_id

if TYPE_CHECKING:
    from stellwerk.datastore import Datastore

ReferenceMode = Literal["mount", "download", "upload"]
EVERYTHING = "**"


class DataPathComputeBinding:
    """How a run gets a data path: mode, place in the run's folder, whether to overwrite."""

    def __init__(
        self,
        mode: ReferenceMode = "mount",
        path_on_compute: str | None = None,
        overwrite: bool = False,
    ) -> None:
        _check_mode(mode)
        self.mode = mode
        self.path_on_compute = path_on_compute
        self.overwrite = overwrite


class DataPath:
    """A file, folder or glob of a datastore; ``path_on_datastore`` None means all of it."""

    def __init__(
        self,
        datastore: "Datastore",
        path_on_datastore: str | None = None,
        name: str | None = None,
    ) -> None:
        self.datastore = datastore
        self.path_on_datastore = (path_on_datastore or "").strip("/")
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataPath) and self._place() == other._place()

    def __hash__(self) -> int:
        return hash(self._place())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(datastore={self.datastore.name!r}, path={self.path!r})"

    @property
    def path(self) -> str:
        """The path as a pattern."""
        return self.path_on_datastore or EVERYTHING

    def path_from(self, path: str) -> "DataPath":
        """A place below this one."""
        return DataPath(self.datastore, f"{self.path_on_datastore}/{path.lstrip('/')}")

    def create_data_reference(
        self,
        data_reference_name: str | None = None,
        datapath_compute_binding: DataPathComputeBinding | None = None,
    ) -> "DataReference":
        """The same place as a reference that a run can be given."""
        how = datapath_compute_binding or DataPathComputeBinding()
        return DataReference(
            self.datastore,
            data_reference_name,
            self.path_on_datastore,
            how.mode,
            how.path_on_compute,
            how.overwrite,
        )

    def _place(self) -> tuple[str, str]:
        return self.datastore.name, self.path_on_datastore


class DataReferenceConfiguration:
    """How a run gets a place of a datastore: what ``run_config.data_references`` holds.

    In mode ``upload`` the run fills the folder and its files are stored there at the end.
    """

    def __init__(
        self,
        datastore_name: str | None = None,
        mode: ReferenceMode = "mount",
        path_on_datastore: str | None = None,
        path_on_compute: str | None = None,
        overwrite: bool = False,
    ) -> None:
        _check_mode(mode)
        self.datastore_name = datastore_name
        self.mode = mode
        self.path_on_datastore = path_on_datastore
        self.path_on_compute = path_on_compute
        self.overwrite = overwrite


class DataReference(DataPath):
    """A place of a datastore for a run; as text ``$AZUREML_DATAREFERENCE_<name>``.

    The text stands in a script's arguments for the path, if the run knows the reference: as an
    argument itself, or in ``run_config.data_references``.
    """

    def __init__(
        self,
        datastore: "Datastore",
        data_reference_name: str | None = None,
        path_on_datastore: str | None = None,
        mode: ReferenceMode = "mount",
        path_on_compute: str | None = None,
        overwrite: bool = False,
    ) -> None:
        _check_mode(mode)
        path = (path_on_datastore or "").strip("/")
        name = data_reference_name or f"ref_{derived_id('reference', datastore.name, path)[:8]}"
        if not name.isidentifier() or not name.isascii():
            raise UserError(
                f"data_reference_name: {name!r} cannot be a reference's name; use letters, digits "
                "and '_', and no digit first",
                code="input.name",
                field="data_reference_name",
            )
        super().__init__(datastore, path, name)
        self.data_reference_name = name
        self.mode: ReferenceMode = mode
        self.path_on_compute = path_on_compute
        self.overwrite = overwrite

    def __str__(self) -> str:
        return f"$AZUREML_DATAREFERENCE_{self.data_reference_name}"

    def path_from(self, path: str) -> "DataReference":
        """A place below this one."""
        return DataReference(self.datastore, None, f"{self.path_on_datastore}/{path.lstrip('/')}")

    def as_mount(self) -> "DataReference":
        """The same reference; the run sees the files, read-only."""
        return self._as("mount", None)

    def as_download(
        self, path_on_compute: str | None = None, overwrite: bool = False
    ) -> "DataReference":
        """The same reference; the run gets its own copy of the files."""
        return self._as("download", path_on_compute, overwrite=overwrite)

    def as_upload(
        self, path_on_compute: str | None = None, overwrite: bool = False
    ) -> "DataReference":
        """The same reference; the run fills the folder."""
        return self._as("upload", path_on_compute, overwrite=overwrite)

    def to_config(self) -> DataReferenceConfiguration:
        """What ``run_config.data_references`` holds."""
        return DataReferenceConfiguration(
            self.datastore.name,
            self.mode,
            self.path_on_datastore,
            self.path_on_compute,
            self.overwrite,
        )

    def _as(
        self, mode: ReferenceMode, path_on_compute: str | None, *, overwrite: bool = False
    ) -> "DataReference":
        return DataReference(
            self.datastore,
            self.data_reference_name,
            self.path_on_datastore,
            mode,
            path_on_compute,
            overwrite,
        )


def _check_mode(mode: str) -> None:
    if mode not in {"mount", "download", "upload"}:
        raise UserError(
            f"mode: got {mode!r}; give mount, download or upload", code="input.mode", field="mode"
        )
