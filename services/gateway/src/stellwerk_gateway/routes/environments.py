"""Environments and their builds."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response
from pydantic import Field
from starlette.responses import StreamingResponse

from stellwerk.api import (
    BuildView,
    EnvironmentRequest,
    EnvironmentView,
    Page,
    PruneRequest,
    PruneView,
)
from stellwerk.errors import NotFoundError
from stellwerk_gateway import examples
from stellwerk_gateway.environments_in_use import in_use
from stellwerk_gateway.fields import EnvId, EnvironmentName, Follow, Offset, PageQuery, Version
from stellwerk_gateway.logs import BuildLog, follow_log, present
from stellwerk_gateway.platform import Here
from stellwerk_gateway.problems import documented
from stellwerk_gateway.routes.run_files import BYTES, LOG_TYPE
from stellwerk_gateway.sboms import SBOM_TYPE, sbom
from stellwerk_gateway.streams import LiveResponse

PRUNE_S = 120.0

router = APIRouter(tags=["environments"])


SBOM: dict[int | str, dict[str, Any]] = {
    200: {"description": "CycloneDX 1.6, JSON.", "content": {SBOM_TYPE: {}}}
}


class EnvironmentQuery(PageQuery):
    """What to list."""

    name: str | None = Field(None, max_length=255, description="All versions of this one.")
    curated: bool = Field(False, description="Those that come with the platform instead.")


@router.post(
    "/environments",
    status_code=201,
    summary="Register an environment",
    responses=documented(400, 409, 413, 415),
)
async def register_environment(
    body: Annotated[EnvironmentRequest, Body(openapi_examples=examples.ENVIRONMENT)],
    platform: Here,
    response: Response,
) -> EnvironmentView:
    """A new version (201), or the one that has the same definition already (200)."""
    view = await platform.send("environment-build", "environment-register", body, EnvironmentView)
    response.status_code = 201 if view.created else 200
    return view


@router.get("/environments", summary="List environments")
async def list_environments(
    query: Annotated[EnvironmentQuery, Query()], platform: Here
) -> Page[EnvironmentView]:
    """All versions of all registered ones, or of one, newest first; or the curated ones."""
    return await platform.ask(
        "environment-build", "environment-list", Page[EnvironmentView], **query.model_dump()
    )


@router.post(
    "/environments/prune", summary="Remove prepared environments", responses=documented(400, 422)
)
async def prune_environments(body: PruneRequest, platform: Here) -> PruneView:
    """Definitions stay; what is asked for again is prepared again."""
    return await platform.ask(
        "environment-build", "environment-prune", PruneView, **body.model_dump(),
        in_use=await in_use(platform), timeout_s=PRUNE_S,
    )  # fmt: skip


@router.get("/environments/{environment}", summary="Show an environment", responses=documented(404))
async def get_environment(
    environment: EnvironmentName, platform: Here, version: Version = None
) -> EnvironmentView:
    """The latest version unless one is asked for."""
    return await platform.ask(
        "environment-build", "environment-get", EnvironmentView, name=environment, version=version
    )


@router.post(
    "/environments/{environment}/builds",
    status_code=202,
    summary="Build an environment",
    responses=documented(404),
)
async def start_build(
    environment: EnvironmentName,
    platform: Here,
    version: Version = None,
    rebuild: Annotated[bool, Query(description="Build again although it is there.")] = False,
) -> BuildView:
    """Prepares it now instead of with the first run; one that is ready is answered at once."""
    return await platform.ask(
        "environment-build", "build-start", BuildView, name=environment, version=version,
        rebuild=rebuild,
    )  # fmt: skip


@router.get("/builds/{env_id}", summary="Show a build", responses=documented(404))
async def get_build(env_id: EnvId, platform: Here) -> BuildView:
    """State of the latest build, and what was installed."""
    return await platform.ask("environment-build", "build-get", BuildView, env_id=env_id)


@router.get(
    "/environments/{environment}/sbom",
    summary="Download an environment's bill of materials",
    response_class=Response,
    responses={**documented(404), **SBOM},
)
async def get_environment_sbom(
    environment: EnvironmentName, platform: Here, version: Version = None
) -> Response:
    """CycloneDX 1.6 of its latest build."""
    view = await get_environment(environment, platform, version)
    try:
        build = await get_build(view.env_id, platform)
    except NotFoundError:  # registered, and never asked for
        return await sbom(platform, None, view.name)
    return await sbom(platform, build.sbom_digest, view.name)


@router.get(
    "/builds/{env_id}/sbom",
    summary="Download a build's bill of materials",
    response_class=Response,
    responses={**documented(404), **SBOM},
)
async def get_build_sbom(env_id: EnvId, platform: Here) -> Response:
    """CycloneDX 1.6."""
    build = await get_build(env_id, platform)
    return await sbom(platform, build.sbom_digest, env_id)


@router.get(
    "/builds/{env_id}/log",
    summary="Read or follow a build log",
    response_class=StreamingResponse,
    responses={**documented(404), **BYTES},
)
async def read_build_log(
    env_id: EnvId, platform: Here, offset: Offset = 0, follow: Follow = False
) -> StreamingResponse:
    """Raw bytes; with `follow` until the build is over."""
    build = await get_build(env_id, platform)
    log = BuildLog(platform, env_id, build.build)
    first = await log.read(offset, 0)
    if first.missing and (not follow or build.state != "building"):
        raise NotFoundError(f"Build {env_id} has no log.", code="log.not_found", field="env_id")
    content = follow_log(platform, log, offset) if follow else present(log, offset, first)
    return LiveResponse(platform, content, LOG_TYPE)
