"""The one place that reads web addresses: every connection goes to an address that was checked.

A name is resolved once per hop, all its addresses must be public (or the operator lists the
host), and the socket connects to exactly those addresses; TLS and the Host header keep the name.
Redirects are followed here, each checked like the first address. Proxies are not used, cookies
and credentials never sent.
"""

import asyncio
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, urldefrag, urljoin

import httpcore2

from stellwerk.errors import UserError
from stellwerk_dataset.addresses import IpAddress, Target, check_address, parse_url

MAX_REDIRECTS = 5
TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}

Resolver = Callable[[str, int], Awaitable[list[str]]]


class FetchError(UserError):
    """A web address could not be read. ``transient``: another try may succeed."""

    code = "dataset.fetch_failed"

    def __init__(self, message: str, *, code: str | None = None, transient: bool = False) -> None:
        super().__init__(message, code=code)
        self.transient = transient


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one fetch, in bytes and seconds. ``bytes`` holds before and after decoding."""

    bytes: int = 20 * 1024**3
    connect_s: float = 30.0
    idle_s: float = 60.0
    total_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where the content came from in the end.

    ``instead``: the place it was read from instead of its own address, for people.
    """

    final_url: str
    etag: str | None
    instead: str | None = None


class Guard:
    """Fetches through the checks above. ``allowed``: ``host:port`` the operator permits."""

    def __init__(
        self,
        allowed: frozenset[str] = frozenset(),
        limits: Limits | None = None,
        *,
        ca_file: Path | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self.allowed = allowed
        self._limits = limits or Limits()
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._resolver = resolver or _system_resolver

    async def fetch(self, url: str, path: Path) -> Fetched:
        """Write what ``url`` holds to ``path``.

        Raises UserError (``url.*``) for an address that may not be read, FetchError when reading
        failed or broke a limit.
        """
        target = parse_url(url, self.allowed)
        try:
            async with asyncio.timeout(self._limits.total_s):
                return await self._follow(target, path)
        except TimeoutError as error:
            raise FetchError(
                f"{target.shown} was not read within {self._limits.total_s:g} s",
                code="dataset.fetch_timeout",
            ) from error

    async def _follow(self, target: Target, path: Path) -> Fetched:
        hop = 0
        while True:
            addresses = await self._resolve(target, hop)
            async with self._open(target, addresses) as response:
                location = _location(target, response)
                if location is None:
                    await self._store(target, response, path)
                    return Fetched(target.url, _header(response, b"etag"))
            hop += 1
            target = self._redirected(target, location, hop)

    def _redirected(self, source: Target, location: str, hop: int) -> Target:
        if hop > MAX_REDIRECTS:
            raise UserError(
                f"{source.shown} is redirected more than {MAX_REDIRECTS} times; "
                "give the final address",
                code="url.redirects",
            )
        url = urldefrag(urljoin(source.url, location)).url
        with _blamed_on_redirect(hop):
            target = parse_url(url, self.allowed)
        if source.scheme == "https" and target.scheme == "http":
            raise UserError(
                f"{source.shown} redirects from https to http, which is not followed",
                code="url.redirects",
            )
        return target

    async def _resolve(self, target: Target, hop: int) -> list[IpAddress]:
        """All addresses of the target, each of them permitted."""
        if target.address is not None:
            return [target.address]
        try:
            async with asyncio.timeout(self._limits.connect_s):
                found = await self._resolver(target.host, target.port)
        except (OSError, TimeoutError, UnicodeError) as error:
            final = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
            raise FetchError(
                f"host {target.host!r} of {target.shown} cannot be resolved",
                code="url.unresolvable",
                transient=not final,
            ) from error
        addresses = [ip_address(text.partition("%")[0]) for text in found]
        if target.authority not in self.allowed:
            with _blamed_on_redirect(hop):
                for address in addresses:
                    check_address(target, address)
        return addresses

    @asynccontextmanager
    async def _open(
        self, target: Target, addresses: list[IpAddress]
    ) -> AsyncIterator[httpcore2.Response]:
        limits = self._limits
        url = httpcore2.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.target.encode(),
        )
        headers = [
            ("Host", target.host_header),
            ("User-Agent", "stellwerk-dataset"),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        waits = {"connect": limits.connect_s, "read": limits.idle_s, "write": limits.idle_s}
        pinned = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls, max_connections=1, network_backend=_Pinned(addresses)
        )
        with _transport_errors(target):
            async with (
                pinned as pool,
                pool.stream("GET", url, headers=headers, extensions={"timeout": waits}) as response,
            ):
                yield response

    async def _store(self, target: Target, response: httpcore2.Response, path: Path) -> None:
        if response.status != 200:
            raise FetchError(
                f"{target.shown} answered with status {response.status}; expected 200",
                transient=response.status in TRANSIENT_STATUS,
            )
        limit = self._limits.bytes
        declared = _header(response, b"content-length") or "0"
        received = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
        too_large = FetchError(
            f"{target.shown} is larger than the limit of {limit} bytes", code="dataset.too_large"
        )
        if received > limit:
            raise too_large
        inflater = _inflater(target, _header(response, b"content-encoding"), limit)
        received = 0
        with path.open("wb") as file:
            async for chunk in response.aiter_stream():
                received += len(chunk)
                if received > limit:
                    raise too_large
                for piece in inflater.pieces(chunk) if inflater else (chunk,):
                    file.write(piece)
            if inflater:
                file.write(inflater.rest())


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to the given addresses only, whatever host it is asked for."""

    def __init__(self, addresses: list[IpAddress]) -> None:
        self._addresses = addresses
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the name was resolved before
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failure: Exception = httpcore2.ConnectError("the name has no address")
        for address in self._addresses:
            try:
                return await self._network.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


class _Inflater:
    """Decodes gzip and zlib streams piece by piece; never more than ``limit`` bytes in all."""

    PIECE = 1024 * 1024

    def __init__(self, target: Target, limit: int) -> None:
        self._target, self._limit, self._total = target, limit, 0
        self._zlib = zlib.decompressobj(wbits=47)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` decodes to, at most 1 MiB at a time."""
        while data:
            if self._zlib.eof:
                self._zlib = zlib.decompressobj(wbits=47)
            try:
                piece = self._zlib.decompress(data, self.PIECE)
            except zlib.error as error:
                raise self._broken() from error
            self._total += len(piece)
            if self._total > self._limit:
                raise FetchError(
                    f"{self._target.shown} is larger than the limit of {self._limit} bytes "
                    "when decompressed",
                    code="dataset.decompressed_limit",
                )
            yield piece
            data = self._zlib.unconsumed_tail or self._zlib.unused_data

    def rest(self) -> bytes:
        """The last bytes; raises FetchError if the stream ended too early."""
        piece = self._zlib.flush()
        if not self._zlib.eof:
            raise self._broken()
        return piece

    def _broken(self) -> FetchError:
        return FetchError(f"{self._target.shown} sent broken compressed data", transient=True)


def _inflater(target: Target, encoding: str | None, limit: int) -> _Inflater | None:
    """The decoder of a body; servers may compress although asked not to."""
    match (encoding or "identity").lower():
        case "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return _Inflater(target, limit)
        case other:
            raise FetchError(
                f"{target.shown} is sent in encoding {other[:40]!r}; supported are none and gzip",
                code="url.encoding",
            )


def _location(target: Target, response: httpcore2.Response) -> str | None:
    """Where a redirect leads; None if the response is none."""
    if response.status not in {301, 302, 303, 307, 308}:
        return None
    location = _header(response, b"location")
    if not location:
        raise FetchError(f"{target.shown} redirects without saying where", code="url.redirects")
    return quote(location, safe="%/:@!$&'()*+,;=~-._?#[]\\ ")


def _header(response: httpcore2.Response, name: bytes) -> str | None:
    values = [value for key, value in response.headers if key.lower() == name]
    return values[-1].decode("utf-8", "replace").strip()[:8192] if values else None


@contextmanager
def _blamed_on_redirect(hop: int) -> Iterator[None]:
    """A blocked address behind a redirect says so, and behind which."""
    try:
        yield
    except UserError as error:
        if hop == 0 or error.code != "url.blocked_address":
            raise
        raise UserError(f"redirect {hop}: {error.message}", code="url.blocked_redirect") from error


@contextmanager
def _transport_errors(target: Target) -> Iterator[None]:
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise FetchError(
            f"{target.shown} did not answer in time", code="dataset.fetch_timeout", transient=True
        ) from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        if _caused_by(error, ssl.SSLCertVerificationError):
            raise FetchError(
                f"the certificate of {target.host} is not valid", code="url.tls"
            ) from error
        raise FetchError(
            f"the connection to {target.shown} failed or broke off", transient=True
        ) from error


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


async def _system_resolver(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
