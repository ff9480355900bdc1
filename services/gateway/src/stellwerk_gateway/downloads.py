"""Files leave by the object store: the gateway only says where, for 15 minutes."""

from collections.abc import AsyncIterator

from starlette.responses import RedirectResponse

from stellwerk.api import RunFileView
from stellwerk.errors import NotFoundError
from stellwerk_gateway.platform import Platform
from stellwerk_gateway.replies import FilesReply
from stellwerk_gateway.submission import find_run


def to_blob(platform: Platform, sha256: str, path: str) -> RedirectResponse:
    """307 to the blob, which the store serves as an attachment under its file name."""
    url = platform.objects.presign_get(sha256, path, inside=platform.inside)
    return RedirectResponse(url, status_code=307)


async def run_files(platform: Platform, run_id: str, after: str = "") -> AsyncIterator[RunFileView]:
    """Files of a run by path, those behind ``after``; none of a run that has only been submitted.

    Raises NotFoundError ``run.not_found``.
    """
    following: str | None = after or None
    while True:
        try:
            page = await platform.ask(
                "history", "run-files", FilesReply, run_id=run_id, after=following
            )
        except NotFoundError:
            await find_run(platform, run_id)
            return
        for file in page.files:
            yield file
        following = page.next
        if following is None:
            return


def no_file(path: str) -> NotFoundError:
    """The error for a path that names no file."""
    return NotFoundError(f"There is no file {path!r}.", code="file.not_found", field="path")
