"""Blobs and source snapshots."""

from typing import Annotated

from pydantic import Field

from stellwerk.api.base import Count, View
from stellwerk.manifest import Manifest
from stellwerk.runspec import Digest, Spec


class BlobRef(Spec):
    """A blob the client has."""

    sha256: Digest
    size: Count


class BlobPlanRequest(Spec):
    """Body of ``POST /api/v1/blobs``: which of these are missing."""

    blobs: Annotated[tuple[BlobRef, ...], Field(max_length=2000)]


class BlobUpload(View):
    """Where to PUT one missing blob, within 15 minutes."""

    sha256: str
    url: str


class BlobPlan(View):
    """The missing ones; everything else is stored already."""

    missing: tuple[BlobUpload, ...]


class SnapshotRequest(Spec):
    """Body of ``POST /api/v1/snapshots``: a source tree whose blobs are uploaded."""

    manifest: Manifest


class SnapshotView(View):
    """A stored source snapshot."""

    digest: str
    files: int
    bytes: int
