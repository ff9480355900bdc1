"""Who may use the interface: bearer tokens, stored hashed, compared in constant time.

Scopes are ``read`` (GET, but no values of secrets), ``write`` (everything else too) and ``admin``
(reserved for operators; may do what write may). A run's own token is signed instead of stored
(``run_callers``) and has limits of its own (``run_scope``). No cookies exist, so no other site can
act for a user. The answer to a missing and to a wrong token is the same.
"""

import hashlib
import hmac
import json
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.types import ASGIApp, Receive, Scope, Send

from stellwerk_gateway.problems import HttpError
from stellwerk_kit.clock import Clock

FAILURES_PER_MINUTE = 10
WINDOW_S = 60.0
MAX_ADDRESSES = 4096
PUBLIC_PATHS = frozenset({"/", "/docs", "/docs.css", "/openapi.json", "/experiments"})
PUBLIC_BELOW = ("/runs/", "/experiments/", "/web/")
"""Pages without data; their scripts ask with a token."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
VALUES = "/api/v1/secrets/"
"""Below it a GET answers with the value of a secret."""
NO_TOKENS = hashlib.sha256(b"").hexdigest()

log = structlog.get_logger()


class Principal(BaseModel):
    """One entry of the tokens file: ``sha256`` is the hex digest of the token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=255)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scope: Literal["read", "write", "admin"]

    def may(self, method: str, path: str) -> bool:
        """Whether the scope allows this request."""
        reads = method in SAFE_METHODS and not path.startswith(VALUES)
        return self.scope != "read" or reads


_ENTRIES = TypeAdapter(tuple[Principal, ...])


class TokenFile:
    """The tokens of a file, read again when it changes. Raises ValueError for a bad one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._principals = _load(path)
        self._version = _version(path)

    def find(self, token: bytes) -> Principal | None:
        """Whose token it is; every entry is compared, so the time tells nothing."""
        digest = hashlib.sha256(token).hexdigest()
        found = None
        for principal in self._principals:
            if hmac.compare_digest(principal.sha256, digest):
                found = principal
        return found

    async def refresh(self) -> None:
        """Take over a changed file; keep the old tokens when the new file is bad."""
        try:
            version = _version(self._path)
            if version == self._version:
                return
            self._principals = _load(self._path)
            self._version = version
        except (OSError, ValueError) as error:
            log.warning("tokens file not usable", action="tokens_kept", error=str(error))
            return
        log.info("tokens read again", action="tokens_reloaded", count=len(self._principals))


@dataclass(frozen=True, slots=True)
class RunCaller:
    """A run that uses its own token."""

    run_id: str

    @property
    def name(self) -> str:
        """How it is called where callers are named."""
        return f"run {self.run_id}"


class Runs(Protocol):
    """Tells whose token a run token is."""

    async def find(self, token: bytes) -> RunCaller | None:
        """The run, None for a token that is no run's (any more)."""


class FailureLimit:
    """Counts wrong tokens by address within the last minute; bounded in addresses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, address: str) -> bool:
        """Count one; returns whether the address has used up its failures."""
        now = self._clock.monotonic()
        times = self._failures.setdefault(address, deque(maxlen=FAILURES_PER_MINUTE + 1))
        self._failures.move_to_end(address)
        while len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        while times and now - times[0] > WINDOW_S:
            times.popleft()
        times.append(now)
        return len(times) > FAILURES_PER_MINUTE


class Authentication:
    """ASGI middleware: sets ``scope["state"]["principal"]`` (and ``"run"``) or raises HttpError.

    A right token passes even where others failed from the same address: behind a proxy all
    clients share one, and nobody may lock out the rest.
    """

    def __init__(self, app: ASGIApp, tokens: TokenFile, runs: Runs, limit: FailureLimit) -> None:
        self._app, self._tokens, self._runs, self._limit = app, tokens, runs, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or refuse it."""
        path = scope["path"]
        if path not in PUBLIC_PATHS and not path.startswith(PUBLIC_BELOW):
            token = _bearer(scope["headers"])
            principal = self._tokens.find(token) or await self._runs.find(token)
            if principal is None:
                raise self._refusal(scope)
            if isinstance(principal, RunCaller):
                scope.setdefault("state", {})["run"] = principal
            elif not principal.may(scope["method"], path):
                raise HttpError(
                    403, "auth.scope", f"Token {principal.name!r} may only read, and no values of "
                    "secrets; use one with scope write."
                )  # fmt: skip
            scope.setdefault("state", {})["principal"] = principal.name
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> HttpError:
        address = str((scope.get("client") or ("unknown",))[0])
        if self._limit.failed(address):
            return HttpError(
                429,
                "auth.too_many_failures",
                f"More than {FAILURES_PER_MINUTE} requests with a wrong token within a minute.",
                headers={"Retry-After": f"{WINDOW_S:g}"},
            )
        return HttpError(
            401,
            "auth.required",
            "Send a valid token in the header: Authorization: Bearer <token>.",
            headers={"WWW-Authenticate": 'Bearer realm="stellwerk"'},
        )


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    given = [text for name, text in headers if name == b"authorization"]
    if len(given) != 1:
        return b""
    scheme, _, token = given[0].partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _load(path: Path) -> tuple[Principal, ...]:
    try:
        principals = _ENTRIES.validate_python(json.loads(path.read_text()))
    except OSError as error:
        raise ValueError(f"STELLWERK_TOKENS_FILE {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(
            f'STELLWERK_TOKENS_FILE {path} must be a JSON list of {{"name", "sha256", "scope"}}'
        ) from error
    if not principals or any(each.sha256 == NO_TOKENS for each in principals):
        raise ValueError(f"STELLWERK_TOKENS_FILE {path} has no token, or the empty one")
    return principals


def _version(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
