"""Every refusal leaves the gateway as RFC 9457 problem+json with a stable ``code``.

``problem_of`` maps the error tree to a status once; nothing else in the gateway decides what an
error looks like. An unexpected error says nothing about itself but an id, which is in the log.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from starlette.responses import Response

from stellwerk import ids
from stellwerk.api import Problem
from stellwerk.environment_spec import InvalidEnvironment
from stellwerk.errors import (
    AuthenticationError,
    ConflictError,
    NotFoundError,
    ServiceUnavailableError,
    StellwerkError,
    UserError,
)

MEDIA_TYPE = "application/problem+json"

log = structlog.get_logger()


class HttpError(StellwerkError):
    """A refusal that only HTTP knows, with its status and headers."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code, field=field)
        self.status = status
        self.headers = dict(headers or {})


class ProblemResponse(Response):
    """A problem as an HTTP answer."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        body = problem.model_dump_json(exclude_none=True)
        super().__init__(body, status_code=problem.status, headers=dict(headers or {}))


def problem_of(error: Exception) -> ProblemResponse:
    """The answer to ``error``; unexpected ones are logged here, under the id the user sees."""
    if isinstance(error, HttpError):
        return problem(
            error.status, error.code, error.message, field=error.field, headers=error.headers
        )
    if isinstance(error, ServiceUnavailableError):
        after = max(1, math.ceil(error.retry_after_s))
        return problem(503, error.code, error.message, retry_after_s=after)
    if isinstance(error, InvalidEnvironment):
        return problem(422, error.code, str(error), field=error.field)
    if isinstance(error, StellwerkError) and (status := _status(error)) is not None:
        return problem(status, error.code, error.message, field=error.field)
    return _unexpected(error)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    field: str | None = None,
    retry_after_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """A problem with its title from the status, and Retry-After where it is known."""
    content = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        field=field,
        retry_after_s=retry_after_s,
    )
    retry = {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))}
    return ProblemResponse(content, {**retry, **(headers or {})})


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems a route may answer."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": _MEANING[status], "content": {MEDIA_TYPE: schema}}
        for status in statuses
    }


_MEANING = {
    400: "The body is no JSON of the accepted form (`json.invalid`).",
    401: "The bearer token is missing or wrong (`auth.required`).",
    403: "The token's scope does not allow this (`auth.scope`).",
    404: "It does not exist.",
    408: "The body came too slowly (`body.timeout`).",
    409: "It exists already, or its state forbids the request.",
    413: "The body is too large (`body.too_large`).",
    415: "The body is not application/json (`body.media_type`).",
    422: "A field is wrong; `field` names it.",
    429: "Too many wrong tokens from this address (`auth.too_many_failures`).",
    500: "An unexpected error; `detail` has the id under which it is logged (`internal`).",
    503: "A part of the platform does not answer; try again after `Retry-After` seconds.",
}


def _status(error: StellwerkError) -> int | None:
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, ConflictError):
        return 409
    if isinstance(error, UserError):
        return 422
    return 401 if isinstance(error, AuthenticationError) else None


def _unexpected(error: Exception) -> ProblemResponse:
    error_id = ids.new_id()
    log.error("request failed", action="http_failed", error_id=error_id, exc_info=error)
    return problem(
        500, "internal", f"Something went wrong here; the gateway's log has it as {error_id}."
    )
