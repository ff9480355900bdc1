"""What the scripted platform's handlers share."""

import json
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TERMINAL = {"Completed", "Failed", "Canceled"}


def problem(status: int, code: str, detail: str, field: str | None = None) -> JSONResponse:
    body = {"title": code, "status": status, "detail": detail, "code": code, "field": field}
    return JSONResponse(body, status, media_type="application/problem+json")


def answer(model: Any, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")


def page(items: list[Any]) -> Response:
    return JSONResponse(
        {"items": [json.loads(each.model_dump_json()) for each in items], "next_cursor": None}
    )


def redirect(p: Any, digest: str | None) -> Response:
    if digest is None:
        return problem(404, "file.not_found", "no such file")
    return RedirectResponse(f"{p.url}/store/{digest}", 307)
