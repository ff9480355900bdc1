"""The service's request/reply verbs, with their request models."""

from typing import Annotated

from pydantic import Field, StringConstraints

from stellwerk.api import (
    ModelLineage,
    ModelName,
    ModelPatch,
    ModelRequest,
    ModelView,
    Page,
    RunFileView,
    View,
)
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.manifest import Manifest
from stellwerk.runspec import Spec
from stellwerk_kit.objects import ObjectStore
from stellwerk_model_registry.domain import check_request, chosen_files, normal_path
from stellwerk_model_registry.handlers import RunBook
from stellwerk_model_registry.store import EndedRun, ListFilter, ModelStore

Key = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]


class ModelGet(Spec):
    """``model-get`` and ``model-files``: None means the latest version."""

    name: str
    version: Version | None = None


class ModelList(Spec):
    """``model-list``. ``tag`` is ``key`` or ``key=value``."""

    name: str | None = None
    run_id: str | None = None
    tag: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: str | None = None


class ModelPatchRequest(Spec):
    """``model-patch``."""

    name: ModelName
    version: Version
    patch: ModelPatch


class ModelDelete(Spec):
    """``model-delete``."""

    name: ModelName
    version: Version


class ModelRegister(ModelRequest):
    """``model-register``; repeats with the same ``key`` are one version."""

    key: Key | None = None


class GivenModel(Spec):
    """``model-register-given``: ``files`` is everything the run has."""

    request: ModelRequest
    key: Key | None = None
    files: Manifest
    lineage: ModelLineage


class ModelFiles(View):
    """Files of one model version."""

    files: tuple[RunFileView, ...]


class Verbs:
    """The answers. ``run_wait_s``: how long a registration waits to hear of its run's end."""

    def __init__(
        self, store: ModelStore, book: RunBook, objects: ObjectStore, run_wait_s: float
    ) -> None:
        self._store, self._book, self._objects = store, book, objects
        self._run_wait_s = run_wait_s

    async def register(self, request: ModelRegister) -> ModelView:
        """Register the next version of a model."""
        check_request(request)
        if known := await self._store.repeated(request.key, request):
            return known
        path = request.path
        if request.manifest is not None:
            manifest, lineage = request.manifest, ModelLineage()
            await self._check_blobs(manifest)
        else:
            run_id = request.run_id or ""
            run = await self._completed_run(run_id)
            path = normal_path(request.path or request.name)
            outputs = Manifest()
            if run.outputs_manifest is not None:
                outputs = await self._objects.get_manifest(run.outputs_manifest)
            manifest, lineage = chosen_files(outputs, path, run_id), run.lineage
        await self._objects.put_manifest(manifest)
        lineage = lineage.model_copy(update={"datasets": request.datasets})
        return await self._store.register(request, path, manifest, lineage, request.key)

    async def register_given(self, request: GivenModel) -> ModelView:
        """Register files that a run has while it goes on, or that a client gave to it."""
        asked = request.request
        if known := await self._store.repeated(request.key, asked):
            return known
        path = normal_path(asked.path or asked.name)
        manifest = chosen_files(request.files, path, asked.run_id or "")
        await self._check_blobs(manifest)
        await self._objects.put_manifest(manifest)
        lineage = request.lineage.model_copy(update={"datasets": asked.datasets})
        return await self._store.register(asked, path, manifest, lineage, request.key)

    async def get(self, request: ModelGet) -> ModelView:
        """One model."""
        return await self._store.get(request.name, request.version)

    async def list_models(self, request: ModelList) -> Page[ModelView]:
        """Models by name, the latest version first."""
        wanted = ListFilter(request.name, request.run_id, request.tag)
        return await self._store.list_models(wanted, request.limit, _cursor(request.cursor))

    async def patch(self, request: ModelPatchRequest) -> ModelView:
        """Change description and tags, add properties."""
        return await self._store.patch(request.name, request.version, request.patch)

    async def delete(self, request: ModelDelete) -> ModelView:
        """Delete one version."""
        return await self._store.delete(request.name, request.version)

    async def files(self, request: ModelGet) -> ModelFiles:
        """Files of a model."""
        model = await self._store.get(request.name, request.version)
        manifest = await self._objects.get_manifest(model.manifest)
        return ModelFiles(
            files=tuple(
                RunFileView(path=entry.path, size=entry.size, sha256=entry.sha256)
                for entry in manifest.entries
            )
        )

    async def _completed_run(self, run_id: str) -> EndedRun:
        run = await self._book.ended_run(run_id, self._run_wait_s)
        if run is None:
            raise NotFoundError(
                f"run_id: no completed run {run_id[:40]!r} is known; models are registered from "
                "runs that completed, so wait for the run first",
                code="run.not_found",
                field="run_id",
            )
        if run.state != "completed":
            raise ConflictError(
                f"run_id: run {run_id!r} ended as {run.state}; models are registered from runs "
                "that completed",
                code="run.not_succeeded",
                field="run_id",
            )
        return run

    async def _check_blobs(self, manifest: Manifest) -> None:
        """Every blob is stored with the size the caller says."""
        sizes = await self._objects.sizes(entry.sha256 for entry in manifest.entries)
        for entry in manifest.entries:
            size = sizes[entry.sha256]
            if size is None:
                raise UserError(
                    f"manifest: the content of {entry.path!r} is not uploaded; "
                    "ask POST /api/v1/blobs where to put it",
                    code="blob.missing",
                    field="manifest",
                )
            if size != entry.size:
                raise UserError(
                    f"manifest: {entry.path!r} is given as {entry.size} bytes, but {size} bytes "
                    "were uploaded",
                    code="blob.size",
                    field="manifest",
                )


def _cursor(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    name, _, version = text.rpartition(":")
    if not name or not version.isdecimal() or len(version) > 10:
        raise UserError(
            f"cursor: got {text[:100]!r}; pass next_cursor of the page before", field="cursor"
        )
    return name, int(version)
