"""The OpenAPI description of the routes, with the model of all problems in it."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from stellwerk.api import Problem
from stellwerk_gateway.routes import api

ABOUT = """
Training runs on your own machines: submit, follow, fetch what they leave.

Send `Authorization: Bearer <token>` with every request. Errors are `application/problem+json`
(RFC 9457): `code` is stable, `field` names what is wrong, `detail` says what to do.
"""


def document() -> dict[str, Any]:
    """The description as plain data."""
    app = FastAPI()
    app.include_router(api())
    found: dict[str, Any] = get_openapi(
        title="Stellwerk", version="1", description=ABOUT, routes=app.routes
    )
    schemas = found["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return found
