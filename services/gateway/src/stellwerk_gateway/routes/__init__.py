"""The REST routes, one module per thing; each is a thin function over one verb of one service."""

from fastapi import APIRouter, Depends
from fastapi.security import HTTPBearer

from stellwerk_gateway.problems import documented
from stellwerk_gateway.routes import (
    blobs,
    compute,
    datasets,
    environments,
    info,
    models,
    run_files,
    run_records,
    runs,
    secrets,
)
from stellwerk_gateway.run_scope import scope_of


def api() -> APIRouter:
    """All routes under ``/api/v1``, with the problems that any of them may answer."""
    # The middleware checks the token; this only says so in the OpenAPI description.
    bearer = Depends(HTTPBearer(auto_error=False, description="A token of the tokens file."))
    router = APIRouter(
        prefix="/api/v1",
        dependencies=[bearer, Depends(scope_of)],
        responses=documented(401, 403, 422, 429, 500, 503),
    )
    for module in (
        info,
        runs,
        run_files,
        run_records,
        blobs,
        datasets,
        environments,
        compute,
        models,
        secrets,
    ):
        router.include_router(module.router)
    return router
