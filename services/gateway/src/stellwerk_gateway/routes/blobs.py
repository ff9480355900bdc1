"""Uploads: which blobs are missing, and source snapshots made of blobs that are there."""

from typing import Annotated

from fastapi import APIRouter, Body

from stellwerk.api import BlobPlan, BlobPlanRequest, BlobUpload, SnapshotRequest, SnapshotView
from stellwerk.errors import UserError
from stellwerk.manifest import Manifest
from stellwerk_gateway import examples
from stellwerk_gateway.platform import Here, Platform
from stellwerk_gateway.problems import documented

router = APIRouter(tags=["files"])

MAX_SNAPSHOT_FILES = 20_000
SHOWN_FILES = 5


@router.post("/blobs", summary="Plan an upload", responses=documented(400, 408, 413, 415))
async def plan_blobs(
    body: Annotated[BlobPlanRequest, Body(openapi_examples=examples.BLOBS)], platform: Here
) -> BlobPlan:
    """Where to PUT those of the blobs that the store does not have; the URLs last 15 minutes."""
    sizes = await platform.objects.sizes(blob.sha256 for blob in body.blobs)
    wanted = dict.fromkeys(blob.sha256 for blob in body.blobs if sizes[blob.sha256] != blob.size)
    return BlobPlan(
        missing=tuple(
            BlobUpload(sha256=digest, url=platform.objects.presign_put(digest)) for digest in wanted
        )
    )


@router.post(
    "/snapshots",
    status_code=201,
    summary="Store a source snapshot",
    responses=documented(400, 408, 413, 415),
)
async def create_snapshot(
    body: Annotated[SnapshotRequest, Body(openapi_examples=examples.SNAPSHOT)], platform: Here
) -> SnapshotView:
    """A list of files whose blobs are uploaded; its digest names the snapshot for ever."""
    manifest = body.manifest
    if not 1 <= len(manifest.entries) <= MAX_SNAPSHOT_FILES:
        raise UserError(
            f"manifest.entries: got {len(manifest.entries)} files; a snapshot has 1 to "
            f"{MAX_SNAPSHOT_FILES}. Leave out data, or make it a dataset.",
            code="snapshot.size",
            field="manifest.entries",
        )
    await _check_uploaded(platform, manifest)
    digest = await platform.objects.put_manifest(manifest)
    return SnapshotView(digest=digest, files=len(manifest.entries), bytes=manifest.size)


async def _check_uploaded(platform: Platform, manifest: Manifest) -> None:
    sizes = await platform.objects.sizes(entry.sha256 for entry in manifest.entries)
    wrong = [entry.path for entry in manifest.entries if sizes[entry.sha256] != entry.size]
    if wrong:
        more = f" and {len(wrong) - SHOWN_FILES} more" if len(wrong) > SHOWN_FILES else ""
        raise UserError(
            f"manifest.entries: not uploaded, or not of that size: "
            f"{', '.join(wrong[:SHOWN_FILES])}{more}. POST /api/v1/blobs says where to put them.",
            code="blob.missing",
            field="manifest.entries",
        )
