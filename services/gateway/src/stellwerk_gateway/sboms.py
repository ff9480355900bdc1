"""Locks and bills of materials, which environment-build keeps by their digests."""

from starlette.responses import Response

from stellwerk.errors import NotFoundError
from stellwerk_gateway.platform import Platform

SBOM_TYPE = "application/vnd.cyclonedx+json"


async def sbom(platform: Platform, digest: str | None, name: str) -> Response:
    """The bill of materials as a file called ``name``. Raises NotFoundError where there is none."""
    if digest is None:
        raise NotFoundError(
            "There is no bill of materials: the environment is not built yet, or it is a Python of "
            "the node, where nothing is installed.",
            code="sbom.not_found",
        )
    content, closed = bytearray(), False
    while not closed:
        piece = await platform.read(
            "environment-build", "record-read", digest=digest, offset=len(content)
        )
        content += piece.body
        closed = piece.headers["Sw-Closed"] == "1"
    attachment = {"Content-Disposition": f'attachment; filename="{name}.cdx.json"'}
    return Response(bytes(content), media_type=SBOM_TYPE, headers=attachment)
