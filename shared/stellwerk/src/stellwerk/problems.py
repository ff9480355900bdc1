"""HTTP failures as exceptions: problem+json in, the SDK's error tree out."""

import httpx2

from stellwerk.errors import (
    AuthenticationError,
    ConflictError,
    NotFoundError,
    ServiceUnavailableError,
    StellwerkError,
    UserError,
)

RETRYABLE = frozenset({429, 502, 503, 504})


def raise_for(response: httpx2.Response) -> None:
    """Raise what a failed answer means; return where it did not fail. Reads the body."""
    if response.status_code < 400:
        return
    response.read()
    raise error_of(response)


def error_of(response: httpx2.Response) -> StellwerkError:
    """The exception for a failed answer whose body has been read."""
    status = response.status_code
    problem = _problem(response)
    field = problem.get("field")
    field = field if isinstance(field, str) else None
    message = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
    code = str(problem["code"]) if problem.get("code") else None
    if status in {401, 403}:
        return AuthenticationError(message, code=code, field=field)
    if status == 404:
        return NotFoundError(message, code=code, field=field)
    if status == 409:
        return ConflictError(message, code=code, field=field)
    if status in RETRYABLE:
        return ServiceUnavailableError(message, code=code, retry_after_s=_retry_after(response))
    if status < 500:
        return UserError(message, code=code, field=field)
    return StellwerkError(f"The platform failed: {message}", code=code or "server")


def _problem(response: httpx2.Response) -> dict[str, object]:
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _retry_after(response: httpx2.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "1")))
    except ValueError:
        return 1.0
