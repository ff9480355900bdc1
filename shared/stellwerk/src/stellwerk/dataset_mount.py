"""A dataset's files in a local folder, read-only, for a while."""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Self

from stellwerk.errors import ConflictError

if TYPE_CHECKING:
    from types import TracebackType

    from stellwerk.file_dataset import FileDataset


class MountContext:
    """``with dataset.mount() as context: context.mount_point``, or start() and stop().

    The files are fetched at the start and removed at the end. ``mount_point`` None: a new
    temporary folder. Raises ConflictError for one that is not empty.
    """

    def __init__(self, dataset: "FileDataset", mount_point: str | None = None) -> None:
        self._dataset = dataset
        self._own = mount_point is None
        self._folder = Path(mount_point or mkdtemp(prefix="stellwerk-mount-")).absolute()
        self._started = False

    @property
    def mount_point(self) -> str:
        """The folder."""
        return str(self._folder)

    def start(self) -> None:
        """Fetch the files."""
        if self._started:
            return
        if self._folder.exists() and any(self._folder.iterdir()):
            raise ConflictError(
                f"mount_point: {self._folder} is not empty; give a new or an empty folder",
                code="file.exists",
                field="mount_point",
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._started = True
        for path in self._dataset.download(str(self._folder)):
            Path(path).chmod(0o444)

    def stop(self) -> None:
        """Remove the files."""
        if not self._started and not self._own:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        if not self._own:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._started = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        self.stop()
