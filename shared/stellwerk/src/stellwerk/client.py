"""The REST API as typed calls: one connection pool, retries, errors of ``stellwerk.errors``.

Every call may be repeated without harm (a POST has its Idempotency-Key), and is while the platform
restarts: after 502, 503, 504, 429 (honouring Retry-After) and after a lost connection, for at most
``patience_s``.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httpx2
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from stellwerk.api import Page
from stellwerk.config import Connection, discover
from stellwerk.errors import (
    AuthenticationError,
    ProtocolError,
    ServiceUnavailableError,
    StellwerkError,
    UserError,
)
from stellwerk.ids import new_id
from stellwerk.problems import RETRYABLE, error_of, raise_for

M = TypeVar("M", bound=BaseModel)
Params = Mapping[str, str | int | float | list[str] | None]

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_FIRST_CONTACT_S = 3.0
_LONGEST_PAUSE_S = 2.0


def segment(text: str) -> str:
    """``text`` as one path segment of an address."""
    return quote(_text(text), safe="")


def file_path(text: str) -> str:
    """A file's path as several path segments of an address."""
    return quote(_text(text), safe="/")


class Client:
    """A connection to the gateway. Threads may share it."""

    def __init__(self, connection: Connection, *, patience_s: float = 30.0) -> None:
        self.connection = connection
        self.patience_s = patience_s
        self._reached = False
        headers = {"Accept": "application/json"}
        if connection.token:
            headers["Authorization"] = f"Bearer {connection.token}"
        self._http = _http_client(connection.url, headers)
        self._stores: dict[str, httpx2.Client] = {}
        self._making = threading.Lock()

    @classmethod
    def connect(cls) -> "Client":
        """The client of the platform that is found from here; one for all who ask."""
        connection = discover()
        with _connecting:
            if connection not in _connected:
                _connected[connection] = cls(connection)
            return _connected[connection]

    def address(self, path: str) -> str:
        """The full address of an API path such as ``/runs``."""
        return f"{self.connection.url}/api/v1{path}"

    def get(self, path: str, model: type[M], params: Params | None = None) -> M:
        """GET and read the answer as ``model``."""
        return self.call("GET", path, model, params=params)

    def call(
        self,
        method: str,
        path: str,
        model: type[M],
        *,
        body: BaseModel | None = None,
        content: bytes | None = None,
        params: Params | None = None,
        key: str | None = None,
    ) -> M:
        """One request. ``key`` is its Idempotency-Key, the same in every repetition.

        ``content`` is JSON that goes as it is, in place of a ``body``.
        """
        headers = {"Idempotency-Key": key or new_id()} if method == "POST" else {}
        content = content if body is None else _encoded(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        request = self._http.build_request(
            method, self.address(path), params=_clean(params), headers=headers, content=content
        )
        response = self._send(request)
        try:
            return model.model_validate_json(response.content or b"{}")
        except ValidationError as error:
            raise ProtocolError(
                f"{method} {path}: the answer is not what this version of the SDK understands "
                f"({error.error_count()} fields); are client and platform of the same version?"
            ) from error

    def content(self, path: str, params: Params | None = None) -> bytes:
        """GET something that is no answer of the API but a document."""
        request = self._http.build_request("GET", self.address(path), params=_clean(params))
        return self._send(request).content

    def pages(self, path: str, item: type[M], params: Params | None = None) -> Iterator[M]:
        """Everything of a paged list, page by page."""
        cursor: str | None = None
        while True:
            page = self.get(path, Page[item], {**(params or {}), "cursor": cursor})  # type: ignore[valid-type]
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    @contextmanager
    def stream(
        self,
        path: str,
        params: Params | None = None,
        *,
        accept: str = "*/*",
        headers: Mapping[str, str] | None = None,
        read_timeout_s: float = 30.0,
    ) -> Iterator[httpx2.Response]:
        """An open GET whose body arrives bit by bit. Not repeated; raises like :meth:`call`."""
        with self._http.stream(
            "GET",
            self.address(path),
            params=_clean(params),
            headers={"Accept": accept, **(headers or {})},
            timeout=httpx2.Timeout(30.0, connect=5.0, read=read_timeout_s),
        ) as response:
            raise_for(response)
            yield response

    def store(self, url: str) -> httpx2.Client:
        """The client for presigned addresses: it never carries the token."""
        scheme = urlsplit(url).scheme
        with self._making:
            if scheme not in self._stores:
                self._stores[scheme] = _http_client(url, {})
            return self._stores[scheme]

    def close(self) -> None:
        """Close all connections."""
        for each in (self._http, *self._stores.values()):
            each.close()

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        began, attempt = time.monotonic(), 0
        while True:
            try:
                response = self._http.send(request)
            except httpx2.TransportError as error:
                patience = self.patience_s if self._reached else _FIRST_CONTACT_S
                pause = pause_before(attempt)
                if _over(began, pause, patience):
                    raise self.unreachable(error) from error
            else:
                self._reached = True
                if response.status_code < 400:
                    return response
                problem = error_of(response)
                if response.status_code == 401:
                    raise self._not_let_in(problem)
                if response.status_code not in RETRYABLE:
                    raise problem
                pause = pause_before(attempt)
                if isinstance(problem, ServiceUnavailableError):
                    pause = max(pause, problem.retry_after_s)
                if _over(began, pause, self.patience_s):
                    raise problem
            time.sleep(pause)
            attempt += 1

    def _not_let_in(self, problem: StellwerkError) -> AuthenticationError:
        """A missing or wrong token, and where the right one is."""
        return AuthenticationError(
            f"The platform at {self.connection.url} (from {self.connection.source}) does not take "
            "this token. Set STELLWERK_TOKEN or STELLWERK_TOKEN_FILE; client.json in the "
            "platform's data folder has one that is valid.",
            code=problem.code,
        )

    def unreachable(self, error: Exception) -> ServiceUnavailableError:
        """What a connection failure means to a user."""
        why = str(error).rstrip(".") or type(error).__name__
        return ServiceUnavailableError(
            f"Cannot reach the platform at {self.connection.url} (from {self.connection.source}): "
            f"{why}. Is it running? `stellwerk status` tells, `stellwerk up` starts it on this "
            "machine.",
            code="unreachable",
        )


def _encoded(body: BaseModel) -> bytes:
    try:
        return body.model_dump_json().encode()
    except PydanticSerializationError as error:  # such as an argument that is no text but bytes
        raise _not_text() from error


def _text(value: str) -> str:
    """``value``, which goes into an address. Raises UserError for bytes that are no text."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _not_text() from error
    return value


def _not_text() -> UserError:
    return UserError(
        "The request holds bytes that are no text (not valid Unicode), in an argument, a name or "
        "a tag; write them in UTF-8.",
        code="text.encoding",
    )


def pause_before(attempt: int) -> float:
    """Seconds to wait before repeating for the ``attempt``-th time, counted from 0."""
    return float(min(0.1 * 2.0 ** min(attempt, 10), _LONGEST_PAUSE_S))


def _over(began: float, pause: float, patience: float) -> bool:
    return time.monotonic() + pause - began > patience


def _http_client(url: str, headers: Mapping[str, str]) -> httpx2.Client:
    parts = urlsplit(url)
    return httpx2.Client(
        headers=dict(headers),
        timeout=httpx2.Timeout(30.0, connect=5.0),
        limits=httpx2.Limits(max_connections=32),
        verify=parts.scheme != "http",  # spares reading the certificates that HTTP never uses
        trust_env=parts.hostname not in _LOOPBACK,  # a proxy cannot reach this machine's loopback
    )


def _clean(params: Params | None) -> dict[str, str | int | float | list[str]] | None:
    given = {k: v for k, v in (params or {}).items() if v is not None}
    for value in given.values():
        for each in value if isinstance(value, list) else [value]:
            _text(str(each))
    return given or None


_connected: dict[Connection, Client] = {}
_connecting = threading.Lock()
