"""Composition root: the REST application, the layers around it, and its port."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from stellwerk.environment_spec import InvalidEnvironment
from stellwerk.errors import StellwerkError
from stellwerk_gateway import pages, web
from stellwerk_gateway.auth import Authentication, FailureLimit, TokenFile
from stellwerk_gateway.guard import Guard
from stellwerk_gateway.limits import BodyLimits
from stellwerk_gateway.openapi import document
from stellwerk_gateway.platform import Platform
from stellwerk_gateway.problems import problem, problem_of
from stellwerk_gateway.routes import api
from stellwerk_gateway.run_callers import RunCallers
from stellwerk_gateway.server import ApiServer
from stellwerk_gateway.settings import Settings
from stellwerk_gateway.snapshots import SnapshotPaths
from stellwerk_gateway.validation import refusal
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.run_tokens import load_key
from stellwerk_kit.service import Runtime

TOKENS_CHECK_S = 5.0


async def build(runtime: Runtime[Settings]) -> None:
    """Listen on the REST port; raises ValueError for a bad tokens file, OSError for the port."""
    settings = runtime.settings
    tokens = TokenFile(settings.tokens_file)
    objects = ObjectStore(settings)  # not waited for: only downloads and uploads need it
    platform = Platform(settings, runtime.bus, objects, runtime.clock, SnapshotPaths(objects))
    key = None if settings.run_token_key is None else load_key(settings.run_token_key)
    server = ApiServer(layered(platform, tokens, key), settings)
    serving = runtime.spawn("rest", server.serve())
    runtime.every("tokens", TOKENS_CHECK_S, tokens.refresh)

    async def stop() -> None:
        platform.stopping.set()
        server.stop()
        await serving
        objects.close()

    runtime.on_stop(stop)
    runtime.log.info("REST", action="listening", host=settings.api_host, port=server.port)


def layered(platform: Platform, tokens: TokenFile, run_key: bytes | None) -> ASGIApp:
    """The application inside its layers: guard, authentication, body limits."""
    limited = BodyLimits(application(platform), platform.settings)
    runs, failures = RunCallers(platform, run_key), FailureLimit(platform.clock)
    authenticated = Authentication(limited, tokens, runs, failures)
    return Guard(authenticated, platform.settings.allowed_hosts)


def application(platform: Platform) -> FastAPI:
    """The routes, and how their errors become problems."""
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers=_handlers(),
    )
    app.state.platform = platform
    app.include_router(api())
    app.include_router(pages.router(document()))
    app.include_router(web.router())
    return app


def _handlers() -> dict[
    int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]
]:
    async def known(_: Request, error: Exception) -> Response:
        return problem_of(error)

    async def invalid(request: Request, error: RequestValidationError) -> Response:
        route = request.scope.get("route")
        return problem_of(refusal(error.errors(), _types_of(route)))

    async def unrouted(_: Request, error: HTTPException) -> Response:
        code = {404: "route.not_found", 405: "method.not_allowed"}.get(error.status_code, "http")
        detail = f"{error.detail}. GET /docs lists all routes."
        return problem(error.status_code, code, detail, headers=error.headers)

    return {
        StellwerkError: known,
        InvalidEnvironment: known,
        RequestValidationError: invalid,
        HTTPException: unrouted,
        Exception: known,
    }


def _types_of(route: Any) -> dict[str, Any]:
    """The types of a route's body and of its query, where they are models."""
    body = getattr(route, "body_field", None)
    query: Any = getattr(getattr(route, "dependant", None), "query_params", ())
    found = {} if body is None else {"body": body.field_info.annotation}
    return found | ({"query": query[0].field_info.annotation} if len(query) == 1 else {})
