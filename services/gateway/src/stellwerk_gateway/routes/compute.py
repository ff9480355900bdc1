"""Clusters that grow and shrink."""

from typing import Annotated

from fastapi import APIRouter, Body, Query

from stellwerk.api import ComputePatch, ComputeRequest, ComputeView, Page
from stellwerk_gateway import examples
from stellwerk_gateway.fields import ComputeId, PageQuery
from stellwerk_gateway.platform import Here
from stellwerk_gateway.problems import documented

router = APIRouter(tags=["compute"])


@router.post(
    "/compute", status_code=201, summary="Make a cluster", responses=documented(400, 409, 413)
)
async def create_compute(
    body: Annotated[ComputeRequest, Body(openapi_examples=examples.COMPUTE)], platform: Here
) -> ComputeView:
    """It keeps `min_nodes` nodes and grows to `max_nodes` while runs wait."""
    return await platform.send("scheduler", "compute-create", body, ComputeView)


@router.get("/compute", summary="List clusters")
async def list_compute(query: Annotated[PageQuery, Query()], platform: Here) -> Page[ComputeView]:
    """All clusters with their nodes."""
    return await platform.ask("scheduler", "compute-list", Page[ComputeView], **query.model_dump())


@router.get("/compute/{compute}", summary="Show a cluster", responses=documented(404))
async def get_compute(compute: ComputeId, platform: Here) -> ComputeView:
    """Its nodes, its queue, and where it is heading."""
    return await platform.ask("scheduler", "compute-get", ComputeView, name=compute)


@router.patch(
    "/compute/{compute}", summary="Change a cluster", responses=documented(400, 404, 409, 413)
)
async def patch_compute(compute: ComputeId, body: ComputePatch, platform: Here) -> ComputeView:
    """Changes how many nodes it keeps and how long they idle."""
    patch = body.model_dump(exclude_none=True)
    return await platform.ask("scheduler", "compute-update", ComputeView, name=compute, patch=patch)


@router.delete("/compute/{compute}", summary="Delete a cluster", responses=documented(404, 409))
async def delete_compute(compute: ComputeId, platform: Here) -> ComputeView:
    """Lets its nodes go; runs that still wait for it are told why they cannot start."""
    platform.targets.pop(compute, None)
    return await platform.ask("scheduler", "compute-delete", ComputeView, name=compute)
