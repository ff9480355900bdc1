"""The service's request/reply verbs, with their request models."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from stellwerk.api import (
    DatasetFiles,
    DatasetFileView,
    DatasetPatch,
    DatasetPaths,
    DatasetRegisterRequest,
    DatasetRequest,
    DatasetSource,
    DatasetUrls,
    DatasetView,
    DatastoreUploadRequest,
    DatastoreUploadView,
    Page,
    View,
)
from stellwerk.errors import UserError
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk.runspec import Name, Spec
from stellwerk_dataset.derived import as_table, part_of_files, part_of_web
from stellwerk_dataset.domain import (
    DEFAULT_DATASTORE,
    Dataset,
    PathPattern,
    WebFile,
    check_tags,
    from_files,
    from_paths,
    from_urls,
    make_manifest,
)
from stellwerk_dataset.fetcher import Fetcher
from stellwerk_dataset.store import DatasetStore
from stellwerk_dataset.waiting import WaitingStore
from stellwerk_kit.objects import ObjectStore

MANIFESTS_KEPT = 8
MAX_PAGE_BYTES = 512 * 1024

Limit = Annotated[int, Field(ge=1, le=1000)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]


class DatasetRegister(Spec):
    """``dataset-register``."""

    dataset_id: str
    request: DatasetRegisterRequest


class DatasetGet(Spec):
    """``dataset-get``: by id, or by name and version (None: the latest)."""

    dataset_id: str | None = None
    name: str | None = None
    version: Version | None = None

    @model_validator(mode="after")
    def _one(self) -> "DatasetGet":
        if (self.dataset_id is None) == (self.name is None):
            raise ValueError("give exactly one of dataset_id and name")
        return self


class DatasetList(Spec):
    """``dataset-list``: the latest of each name, or all versions of one ``name``."""

    name: str | None = None
    limit: Limit = 100
    cursor: str | None = None


class DatasetFilesQuery(Spec):
    """``dataset-files``: all, by path, or the one at ``path``.

    With ``fetch``, web files are read first, for up to ``wait_s`` seconds; those that need longer
    come without size and digest, and the read goes on.
    """

    dataset_id: str
    path: str | None = None
    limit: Limit = 1000
    cursor: str | None = None
    fetch: bool = True
    wait_s: Annotated[float, Field(ge=0, le=20)] = 3.0


class DatasetPatchRequest(Spec):
    """``dataset-patch``."""

    name: str
    version: Version
    patch: DatasetPatch


class DatasetUnregister(Spec):
    """``dataset-unregister``."""

    name: str


class DatasetUnregistered(View):
    """How many versions lost their name."""

    versions: int


class DatastoreUpload(Spec):
    """``datastore-upload``."""

    name: Name
    request: DatastoreUploadRequest


class DatastoreFilesQuery(Spec):
    """``datastore-files``: files whose path begins with ``prefix``, by path."""

    name: Name = DEFAULT_DATASTORE
    prefix: str = ""
    limit: Limit = 1000
    cursor: str | None = None


class Verbs:
    """The answers. ``allowed``: ``host:port`` that the operator permits for web files."""

    def __init__(
        self,
        store: DatasetStore,
        waiting: WaitingStore,
        objects: ObjectStore,
        fetcher: Fetcher,
        allowed: frozenset[str],
    ) -> None:
        self._store, self._waiting, self._objects = store, waiting, objects
        self._fetcher, self._allowed = fetcher, allowed
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()

    async def create(self, request: DatasetRequest) -> DatasetView:
        """Make a dataset of files, datastore paths (pinned now), web addresses or a dataset."""
        dataset, manifest, web = await self._files_of(request.source)
        if request.tabular is not None:
            dataset = as_table(dataset, request.tabular)
        if manifest is not None:
            await self._objects.put_manifest(manifest)
        return await self._store.create(dataset, web)

    async def _files_of(
        self, source: DatasetSource
    ) -> tuple[Dataset, Manifest | None, Sequence[WebFile]]:
        """The dataset of the files, its manifest where it is new, and web files."""
        if isinstance(source, DatasetFiles):
            await self._check_blobs("source.entries", source.entries)
            return *from_files(source), ()
        if isinstance(source, DatasetPaths):
            patterns = [PathPattern.of(path) for path in source.paths]
            return *from_paths(await self._store.look_up(patterns)), ()
        if isinstance(source, DatasetUrls):
            dataset, unread = from_urls(source.urls, self._allowed)
            return dataset, None, unread
        base = await self._store.dataset(source.dataset_id)
        web = await self._store.web_files(base.id) if base.kind == "urls" else []
        if source.paths is None:
            return base, None, web
        if base.kind == "urls":
            part, chosen, manifest = part_of_web(base, web, source.paths)
            return part, manifest, chosen
        whole = await self._manifest(base.manifest or "")
        return *part_of_files(base, whole, source.paths), ()

    async def register(self, request: DatasetRegister) -> DatasetView:
        """Give a dataset a name and version."""
        check_tags(request.request.tags)
        return await self._store.register(request.dataset_id, request.request)

    async def get(self, request: DatasetGet) -> DatasetView:
        """One dataset."""
        return await self._store.get(request.dataset_id, request.name, request.version)

    async def list_registered(self, request: DatasetList) -> Page[DatasetView]:
        """Registered datasets."""
        if request.name is None:
            return await self._store.list_latest(request.limit, request.cursor)
        return await self._store.list_versions(request.name, request.limit, request.cursor)

    async def files(self, request: DatasetFilesQuery) -> Page[DatasetFileView]:
        """Files of a dataset, by path."""
        dataset = await self._store.dataset(request.dataset_id)
        if dataset.manifest is None and request.fetch:
            urls = await self._waiting.want(dataset.id)
            await self._fetcher.wait(urls, request.wait_s)
            dataset = await self._store.dataset(dataset.id)
        if dataset.kind == "urls":
            web = await self._store.web_files(dataset.id)
            views = [DatasetFileView.model_validate(file, from_attributes=True) for file in web]
        else:
            entries = (await self._manifest(dataset.manifest or "")).entries
            if request.path is not None:  # spares making a view of each of many files
                entries = tuple(entry for entry in entries if entry.path == request.path)
            views = _views(entries)
        if request.path is not None:
            views = [view for view in views if view.path == request.path]
        return _page(_after(views, request.cursor), request.limit)

    async def patch(self, request: DatasetPatchRequest) -> DatasetView:
        """Change description and tags of a registered version."""
        return await self._store.patch(request.name, request.version, request.patch)

    async def unregister(self, request: DatasetUnregister) -> DatasetUnregistered:
        """Take a name away; datasets and the runs that used them stay."""
        return DatasetUnregistered(versions=await self._store.unregister(request.name))

    async def upload(self, request: DatastoreUpload) -> DatastoreUploadView:
        """Give uploaded blobs paths in a datastore."""
        entries = make_manifest(request.request.entries).entries
        await self._check_blobs("entries", entries)
        stored, unchanged = await self._store.upload(
            request.name, entries, overwrite=request.request.overwrite
        )
        return DatastoreUploadView(stored=stored, unchanged=unchanged)

    async def datastore_files(self, request: DatastoreFilesQuery) -> Page[DatasetFileView]:
        """Files of a datastore."""
        entries = await self._store.datastore_page(
            request.name, request.prefix, request.limit + 1, request.cursor
        )
        return _page(_views(entries), request.limit)

    async def _check_blobs(self, field: str, entries: Sequence[ManifestEntry]) -> None:
        """Every blob is stored with the size the caller says."""
        sizes = await self._objects.sizes(entry.sha256 for entry in entries)
        missing = [entry for entry in entries if sizes[entry.sha256] is None]
        if missing:
            raise UserError(
                f"{field}: the content of {missing[0].path!r} is not uploaded "
                f"({len(missing)} of {len(entries)} files); ask POST /api/v1/blobs where to put it",
                code="blob.missing",
                field=field,
            )
        wrong = [entry for entry in entries if sizes[entry.sha256] != entry.size]
        if wrong:
            raise UserError(
                f"{field}: {wrong[0].path!r} is given as {wrong[0].size} bytes, but "
                f"{sizes[wrong[0].sha256]} bytes were uploaded",
                code="blob.size",
                field=field,
            )

    async def _manifest(self, digest: str) -> Manifest:
        """A stored manifest; the last few are kept, since pages are read one after another."""
        manifest = self._manifests.get(digest) or await self._objects.get_manifest(digest)
        self._manifests[digest] = manifest
        self._manifests.move_to_end(digest)
        if len(self._manifests) > MANIFESTS_KEPT:
            self._manifests.popitem(last=False)
        return manifest


def _views(entries: Sequence[ManifestEntry]) -> list[DatasetFileView]:
    return [
        DatasetFileView(path=entry.path, size=entry.size, sha256=entry.sha256) for entry in entries
    ]


def _after(files: Sequence[DatasetFileView], cursor: str | None) -> list[DatasetFileView]:
    return [file for file in files if cursor is None or file.path > cursor]


def _page(files: Sequence[DatasetFileView], limit: int) -> Page[DatasetFileView]:
    """The first ``limit`` files, fewer where they would not fit into one message."""
    shown: list[DatasetFileView] = []
    room = MAX_PAGE_BYTES
    for file in files[:limit]:
        room -= len(file.model_dump_json())
        if shown and room < 0:
            break
        shown.append(file)
    more = len(files) > len(shown)
    return Page[DatasetFileView](items=tuple(shown), next_cursor=shown[-1].path if more else None)
