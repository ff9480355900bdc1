"""The outermost layer: Host allowlist, security headers, problems for errors, one log line.

The allowlist defeats DNS rebinding: a page of another name that resolves to this address is
answered 421 before anything else is looked at.
"""

import time
from collections.abc import Iterable

import structlog
from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stellwerk_gateway.limits import ClientGoneError
from stellwerk_gateway.problems import HttpError, problem_of

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
HTTP_SECONDS = Histogram(
    "stellwerk_http_seconds", "Time until the head of an answer", ["method", "route", "status"]
)

log = structlog.get_logger()


class Guard:
    """ASGI middleware around everything; the only place that turns errors into answers."""

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = LOOPBACK_NAMES | {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        status, complete, started = 0, False, time.perf_counter()

        async def guarded_send(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_missing(message)]
                _record(scope, status, time.perf_counter() - started)
            complete = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            self._check_host(scope)
            await self._app(scope, receive, guarded_send)
        except ClientGoneError:
            log.info("client left", action="http_client_gone", path=scope["path"])
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            if not status:
                await problem_of(error)(scope, receive, guarded_send)
            elif not complete:
                # The head is out: only a connection that breaks can tell the client now.
                log.warning(
                    "answer broken off", action="http_broken", path=scope["path"], error=repr(error)
                )

    def _check_host(self, scope: Scope) -> None:
        given = [text for name, text in scope["headers"] if name == b"host"]
        host = _name(given[0].decode("latin-1")) if len(given) == 1 else ""
        if host not in self._hosts:
            raise HttpError(
                421,
                "host.unknown",
                f"This server is not called {host[:100]!r}. Its operator can add the name to "
                "STELLWERK_ALLOWED_HOSTS.",
            )


def _name(host: str) -> str:
    """A Host header without its port."""
    bracket = host.rfind("]")
    end = host.find(":", bracket + 1)
    return (host if end < 0 else host[:end]).lower().rstrip(".")


def _missing(message: Message) -> list[tuple[bytes, bytes]]:
    have = {name.lower() for name, _ in message.get("headers", ())}
    added = [pair for pair in SECURITY_HEADERS if pair[0] not in have]
    return added if b"cache-control" in have else [*added, (b"cache-control", b"no-store")]


def _record(scope: Scope, status: int, seconds: float) -> None:
    method = scope["method"] if scope["method"] in METHODS else "OTHER"
    route = getattr(scope.get("route"), "path", "none")
    HTTP_SECONDS.labels(method, route, str(status)).observe(seconds)
    write = log.debug if method == "GET" and status < 400 else log.info
    write(
        "request",
        action="http",
        method=method,
        path=scope["path"][:200],
        status=status,
        ms=round(seconds * 1000, 1),
        who=scope.get("state", {}).get("principal"),
    )
