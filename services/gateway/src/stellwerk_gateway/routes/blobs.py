"""Uploads: which blobs are missing, and source snapshots made of blobs that are there."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Response

from stellwerk.answers import FileList
from stellwerk.api import (
    BlobPlan,
    BlobPlanRequest,
    BlobUpload,
    RunFileView,
    SnapshotRequest,
    SnapshotView,
)
from stellwerk.errors import NotFoundError, ProtocolError, UserError
from stellwerk.manifest import Manifest
from stellwerk.runspec import DIGEST_PATTERN
from stellwerk_gateway import examples
from stellwerk_gateway.downloads import no_file, to_blob
from stellwerk_gateway.fields import FilePath, relative_path
from stellwerk_gateway.platform import Here, Platform
from stellwerk_gateway.problems import documented

router = APIRouter(tags=["files"])

SnapshotId = Annotated[str, Path(pattern=DIGEST_PATTERN, description="Digest of a snapshot.")]
MAX_SNAPSHOT_FILES = 20_000
SHOWN_FILES = 5


@router.post("/blobs", summary="Plan an upload", responses=documented(400, 408, 413, 415))
async def plan_blobs(
    body: Annotated[BlobPlanRequest, Body(openapi_examples=examples.BLOBS)], platform: Here
) -> BlobPlan:
    """Where to PUT those of the blobs that the store does not have; the URLs last 15 minutes."""
    sizes = await platform.objects.sizes(blob.sha256 for blob in body.blobs)
    wanted = dict.fromkeys(blob.sha256 for blob in body.blobs if sizes[blob.sha256] != blob.size)
    presign = platform.objects.presign_put
    return BlobPlan(
        missing=tuple(
            BlobUpload(sha256=digest, url=presign(digest, inside=platform.inside))
            for digest in wanted
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


@router.get(
    "/snapshots/{digest}/files", summary="List a snapshot's files", responses=documented(404)
)
async def list_snapshot_files(digest: SnapshotId, platform: Here) -> FileList:
    """Paths, sizes and digests."""
    return FileList(
        files=tuple(
            RunFileView(path=entry.path, size=entry.size, sha256=entry.sha256)
            for entry in (await _snapshot(platform, digest)).entries
        )
    )


@router.get(
    "/snapshots/{digest}/files/{path:path}",
    status_code=307,
    response_class=Response,
    summary="Download a file of a snapshot",
    responses=documented(404),
)
async def get_snapshot_file(digest: SnapshotId, path: FilePath, platform: Here) -> Response:
    """A redirect to the object store, valid for 15 minutes."""
    name = relative_path(path)
    for entry in (await _snapshot(platform, digest)).entries:
        if entry.path == name:
            return to_blob(platform, entry.sha256, name)
    raise no_file(name)


async def _snapshot(platform: Platform, digest: str) -> Manifest:
    try:
        return await platform.objects.get_manifest(digest)
    except (NotFoundError, ProtocolError) as error:
        raise NotFoundError(
            f"There is no snapshot {digest}.", code="snapshot.not_found", field="digest"
        ) from error


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
