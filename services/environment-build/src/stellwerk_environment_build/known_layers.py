"""Which layers were made already, by what they hold: their digest and size."""

import os
import threading
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stellwerk_environment_build.cache import write_fresh

PART_S = 3600.0
"""So long a file may take to be written; then whoever wrote it is no more."""
_PART = ".part-"


class Blob(BaseModel):
    """A layer's bytes, as a registry and an engine know them. Not compressed."""

    model_config = ConfigDict(frozen=True)

    digest: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    size: int


class KnownLayers:
    """A folder with a small file for each. That one is known does not mean that it is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str | None) -> Blob | None:
        """The layer of that key."""
        if key is None:
            return None
        try:
            return Blob.model_validate_json((self._folder / key).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def put(self, key: str | None, blob: Blob) -> None:
        """Know a layer from now on; one without key cannot be known."""
        if key is None:
            return
        self._folder.mkdir(exist_ok=True)
        part = self._folder / f"{key}{_PART}{os.getpid()}.{threading.get_ident()}"
        write_fresh(part, blob.model_dump_json())
        part.replace(self._folder / key)

    def forget(self, keys: Iterable[str | None]) -> None:
        """Know those no more."""
        for key in keys:
            if key is not None:
                (self._folder / key).unlink(missing_ok=True)

    def forget_all_but(self, digests: Collection[str]) -> None:
        """Forget what no environment has; whoever wants it again makes it again."""
        with suppress(FileNotFoundError):
            for path in list(self._folder.iterdir()):
                if self._in_progress(path):
                    continue
                blob = self.get(path.name)
                if blob is None or blob.digest not in digests:
                    path.unlink(missing_ok=True)

    @staticmethod
    def _in_progress(path: Path) -> bool:
        """Whether it is being written, or was renamed since; what is old was left by a crash."""
        if _PART not in path.name:
            return False
        try:
            return time.time() - path.stat().st_mtime < PART_S
        except FileNotFoundError:
            return True
