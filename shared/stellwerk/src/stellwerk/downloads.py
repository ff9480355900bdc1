"""Download of files by digest: verified, written atomically, never outside the target folder."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urljoin

import httpx2

from stellwerk.client import Client, pause_before
from stellwerk.errors import ConflictError, ProtocolError, ServiceUnavailableError
from stellwerk.ids import new_id
from stellwerk.manifest import safe_path
from stellwerk.problems import raise_for
from stellwerk.progress import Progress

PARALLEL = 8
_TRIES = 5
_WEB_FILE_S = 600.0
_REDIRECTS = frozenset({302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of the platform: its API path, and what is known of its content."""

    address: str
    target: Path
    size: int | None = None
    sha256: str | None = None


def inside(folder: Path, name: str) -> Path:
    """Where a file that the server calls ``name`` may lie below ``folder``.

    Raises ProtocolError for a name that leads elsewhere, be it by a link that lies there already.
    """
    try:
        relative = safe_path(name.removeprefix("/"))
    except ValueError as error:
        raise ProtocolError(f"The platform named a file {name[:200]!r}: {error}") from error
    target = folder / relative
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise ProtocolError(f"{target} leads out of {folder} by a link; nothing was written there")
    return target


def download(
    client: Client,
    files: Sequence[RemoteFile],
    *,
    overwrite: bool = True,
    label: str = "Download",
    show: bool = False,
) -> list[Path]:
    """Fetch all ``files``. Raises ConflictError where one exists and may not be overwritten."""
    for each in files:
        if each.target.is_dir() or (not overwrite and each.target.exists()):
            raise ConflictError(
                f"{each.target} exists already; give another target (--to) or allow overwriting "
                "(--overwrite)",
                code="file.exists",
                field="target_path",
            )
    size = sum(each.size or 0 for each in files)
    with (
        Progress(label, len(files), size, show=show) as progress,
        ThreadPoolExecutor(PARALLEL, thread_name_prefix="download") as pool,
    ):
        jobs = [pool.submit(_fetch, client, each, progress) for each in files]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
    return [each.target for each in files]


def _fetch(client: Client, file: RemoteFile, progress: Progress) -> None:
    file.target.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _WEB_FILE_S
    attempt = 0
    while True:
        try:
            _try_fetch(client, file, progress)
        except (httpx2.TransportError, ServiceUnavailableError) as error:
            attempt += 1
            if attempt == _TRIES:
                raise ServiceUnavailableError(
                    f"{file.target.name} could not be downloaded after {_TRIES} tries: {error}",
                    code="store.unavailable",
                ) from error
        except ConflictError as error:  # the platform is still fetching it from the web
            if error.code != "dataset.not_read" or time.monotonic() > deadline:
                raise
        else:
            progress.file_done()
            return
        time.sleep(pause_before(attempt))


def _try_fetch(client: Client, file: RemoteFile, progress: Progress) -> None:
    digest, got = hashlib.sha256(), 0
    with _replacing(file.target) as target, _opened(client, file.address) as response:
        for chunk in response.iter_bytes():
            target.write(chunk)
            digest.update(chunk)
            got += len(chunk)
            progress.add(len(chunk))
        if file.sha256 is not None and digest.hexdigest() != file.sha256:
            progress.add(-got)
            raise ServiceUnavailableError(
                f"the content of {file.target.name} is not what the platform promised "
                f"({got} bytes, expected {file.size}, SHA-256 {file.sha256[:12]}…)",
                code="store.content",
            )


@contextmanager
def _opened(client: Client, address: str) -> Iterator[httpx2.Response]:
    """The file's bytes, from the gateway itself or from where it sends us, without the token."""
    with client.stream(address, read_timeout_s=60.0) as response:
        if response.status_code not in _REDIRECTS:
            yield response
            return
        url = urljoin(str(response.url), response.headers["Location"])
    with client.store(url).stream("GET", url, timeout=httpx2.Timeout(60.0, connect=5.0)) as stored:
        if stored.status_code in {403, 404}:
            raise ServiceUnavailableError(
                f"the object store answered with HTTP status {stored.status_code}",
                code="store.unavailable",
            )
        raise_for(stored)
        yield stored


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file next to ``target`` that takes its place only if all goes well."""
    part = target.with_name(f".{target.name[:80]}.{new_id()[:8]}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
