"""Files leave by the object store: the gateway only says where, for 15 minutes."""

from collections.abc import Iterable

from starlette.responses import RedirectResponse

from stellwerk.api import RunFileView
from stellwerk.errors import NotFoundError
from stellwerk_gateway.platform import Platform


def to_blob(platform: Platform, sha256: str, path: str) -> RedirectResponse:
    """307 to the blob, which the store serves as an attachment under its file name."""
    return RedirectResponse(platform.objects.presign_get(sha256, path), status_code=307)


def find_file(files: Iterable[RunFileView], path: str) -> RunFileView:
    """The file with this path. Raises NotFoundError ``file.not_found``."""
    for file in files:
        if file.path == path:
            return file
    raise NotFoundError(f"There is no file {path!r}.", code="file.not_found", field="path")
