"""What this platform is, and whether its parts answer."""

import asyncio
from importlib.metadata import version

from fastapi import APIRouter

from stellwerk.api import InfoView, View
from stellwerk.errors import ServiceUnavailableError, StellwerkError
from stellwerk.events import MAX_EVENT_BYTES
from stellwerk.runspec import MAX_INLINE_SOURCE_BYTES
from stellwerk_gateway.platform import BEST_EFFORT_S, Here, Platform
from stellwerk_gateway.routes.blobs import MAX_SNAPSHOT_FILES

router = APIRouter(tags=["platform"])

PROBES = {
    "scheduler": "compute-list",
    "history": "experiment-list",
    "dataset": "dataset-list",
    "environment-build": "environment-list",
    "model-registry": "model-list",
    "keyvault": "secret-list",
}
"""A cheap question for each service that answers questions."""


@router.get("/info", summary="Version, limits and state of the platform")
async def info(platform: Here) -> InfoView:
    """Asks every service at once; one that does not answer within a second is `away`."""
    states = await asyncio.gather(*(_state(platform, name, verb) for name, verb in PROBES.items()))
    settings = platform.settings
    return InfoView(
        version=version("stellwerk-gateway"),
        workspace=settings.workspace,
        services={"gateway": "ready", **dict(zip(PROBES, states, strict=True))},
        limits={
            "body_bytes": settings.max_body_bytes,
            "manifest_bytes": settings.max_manifest_bytes,
            "run_bytes": MAX_EVENT_BYTES,
            "inline_source_bytes": MAX_INLINE_SOURCE_BYTES,
            "snapshot_files": MAX_SNAPSHOT_FILES,
        },
    )


async def _state(platform: Platform, service: str, verb: str) -> str:
    try:
        await platform.ask(service, verb, View, timeout_s=BEST_EFFORT_S, limit=1)
    except ServiceUnavailableError:
        return "away"
    except StellwerkError:
        return "failing"
    return "ready"
