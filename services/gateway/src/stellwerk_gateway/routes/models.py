"""Registered models."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import Field

from stellwerk.answers import FileList
from stellwerk.api import ModelPatch, ModelRequest, ModelView, Page
from stellwerk_gateway import examples
from stellwerk_gateway.downloads import no_file, to_blob
from stellwerk_gateway.fields import (
    FilePath,
    Key,
    ModelId,
    OneLabel,
    PageQuery,
    Version,
    VersionNumber,
    one_label,
    relative_path,
)
from stellwerk_gateway.platform import Here
from stellwerk_gateway.problems import documented
from stellwerk_gateway.run_models import register
from stellwerk_gateway.run_scope import Within

router = APIRouter(tags=["models"])


class ModelQuery(PageQuery):
    """What to list."""

    name: str | None = Field(None, max_length=255, description="All versions of this model.")
    run_id: str | None = Field(None, max_length=40, description="Models made by this run.")
    tag: OneLabel = Field((), description="A tag they have: name, or name=value.")


@router.post(
    "/models",
    status_code=201,
    summary="Register a model",
    responses=documented(400, 404, 408, 409, 413, 415),
)
async def register_model(
    body: Annotated[ModelRequest, Body(openapi_examples=examples.MODEL)],
    platform: Here,
    scope: Within,
    idempotency_key: Key = None,
) -> ModelView:
    """The next version of a name, from a run's files or from uploaded blobs.

    Repeat a request whose answer was lost with the same `Idempotency-Key`.
    """
    await scope.model(body)
    return await register(platform, body, idempotency_key)


@router.get("/models", summary="List models")
async def list_models(query: Annotated[ModelQuery, Query()], platform: Here) -> Page[ModelView]:
    """All versions that fit, by name, the latest of a name first."""
    fields = query.model_dump() | {"tag": one_label(query.tag)}
    return await platform.ask("model-registry", "model-list", Page[ModelView], **fields)


@router.get("/models/{model}", summary="Show a model", responses=documented(404))
async def get_model(model: ModelId, platform: Here, version: Version = None) -> ModelView:
    """The latest version unless one is asked for, with the run it came from."""
    return await platform.ask("model-registry", "model-get", ModelView, name=model, version=version)


@router.patch(
    "/models/{model}/versions/{version}",
    summary="Change a model's tags",
    responses=documented(400, 404, 413),
)
async def patch_model(
    model: ModelId, version: VersionNumber, body: ModelPatch, platform: Here
) -> ModelView:
    """Merges tags, adds properties, sets the description."""
    patch = body.model_dump(exclude_unset=True)
    return await platform.ask(
        "model-registry", "model-patch", ModelView, name=model, version=version, patch=patch
    )


@router.delete(
    "/models/{model}/versions/{version}", summary="Delete a version", responses=documented(404)
)
async def delete_model(model: ModelId, version: VersionNumber, platform: Here) -> ModelView:
    """Its number is never used again."""
    return await platform.ask(
        "model-registry", "model-delete", ModelView, name=model, version=version
    )


@router.get(
    "/models/{model}/versions/{version}/files",
    summary="List a model's files",
    responses=documented(404),
)
async def list_model_files(model: ModelId, version: VersionNumber, platform: Here) -> FileList:
    """Paths, sizes and digests."""
    return await platform.ask(
        "model-registry", "model-files", FileList, name=model, version=version
    )


@router.get(
    "/models/{model}/versions/{version}/files/{path:path}",
    status_code=307,
    response_class=Response,
    summary="Download a file of a model",
    responses=documented(404),
)
async def get_model_file(
    model: ModelId, version: VersionNumber, path: FilePath, platform: Here
) -> Response:
    """A redirect to the object store, valid for 15 minutes."""
    name = relative_path(path)
    files = (await list_model_files(model, version, platform)).files
    digest = next((file.sha256 for file in files if file.path == name), None)
    if digest is None:
        raise no_file(name)
    return to_blob(platform, digest, name)
