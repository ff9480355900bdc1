"""Web addresses a dataset may name: pure checks of URLs and of the addresses behind them.

A URL is taken apart once, here, and the parts are what the request is made of, so that no second
parser can read it differently. Raises UserError with a stable ``url.*`` code.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, quote, urlsplit

from stellwerk.errors import UserError

IpAddress = IPv4Address | IPv6Address

PORTS = {"http": 80, "https": 443}
MAX_URL_LENGTH = 4096

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"^(?!-)[a-z0-9_-]{1,63}(\.(?!-)[a-z0-9_-]{1,63})*$")
_NUMBER = re.compile(r"^(0x[0-9a-f]*|[0-9]+)$")
_URL_SAFE = "%/:@!$&'()*+,;=~-._?[]"

_V4 = [
    (IPv4Network("0.0.0.0/8"), "this-network"),
    (IPv4Network("10.0.0.0/8"), "private"),
    (IPv4Network("100.64.0.0/10"), "carrier-nat"),
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("168.63.129.16/32"), "cloud-platform"),
    (IPv4Network("169.254.0.0/16"), "link-local"),
    (IPv4Network("172.16.0.0/12"), "private"),
    (IPv4Network("192.0.0.0/24"), "reserved"),
    (IPv4Network("192.0.2.0/24"), "documentation"),
    (IPv4Network("192.88.99.0/24"), "relay"),
    (IPv4Network("192.168.0.0/16"), "private"),
    (IPv4Network("198.18.0.0/15"), "benchmark"),
    (IPv4Network("198.51.100.0/24"), "documentation"),
    (IPv4Network("203.0.113.0/24"), "documentation"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),
]
_V6 = [
    (IPv6Network("::/128"), "unspecified"),
    (IPv6Network("::1/128"), "loopback"),
    (IPv6Network("fc00::/7"), "private"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("fec0::/10"), "private"),
    (IPv6Network("ff00::/8"), "multicast"),
    (IPv6Network("2001::/23"), "reserved"),
    (IPv6Network("2001:db8::/32"), "documentation"),
    (IPv6Network("3fff::/20"), "documentation"),
]
_GLOBAL_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}


@dataclass(frozen=True, slots=True)
class Target:
    """One web address, taken apart.

    ``host`` is lower-case ASCII; an address in any spelling is ``address`` and its canonical text.
    ``target`` is path and query as they are sent.
    """

    scheme: str
    host: str
    port: int
    target: str
    address: IpAddress | None

    @property
    def authority(self) -> str:
        """Host and port as the operator lists them, for example ``files.lab:8080``."""
        return f"{self._bracketed()}:{self.port}"

    @property
    def host_header(self) -> str:
        """Value of the Host header."""
        return self._bracketed() if self.port == PORTS[self.scheme] else self.authority

    @property
    def url(self) -> str:
        """The whole normalised address."""
        return f"{self.scheme}://{self.host_header}{self.target}"

    @property
    def shown(self) -> str:
        """The address for messages: no query, which may carry a signature."""
        return f"{self.scheme}://{self.host_header}{self.target.partition('?')[0]}"[:300]

    def _bracketed(self) -> str:
        return f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host


def parse_url(url: str, allowed: frozenset[str] = frozenset()) -> Target:
    """``url`` taken apart and checked as far as that goes without asking a name server.

    ``allowed`` are the ``host:port`` that the operator permits whatever their port and address.
    """
    if len(url) > MAX_URL_LENGTH or _FORBIDDEN.search(url):
        raise UserError(
            f"url {url[:80]!r} is longer than {MAX_URL_LENGTH} characters or has blanks, "
            "backslashes or control characters; percent-encode them",
            code="url.malformed",
        )
    try:
        split = urlsplit(url)
    except ValueError as error:
        raise UserError(f"url {url[:80]!r} is malformed: {error}", code="url.malformed") from error
    if split.scheme not in PORTS:
        raise UserError(
            f"url scheme {split.scheme[:40]!r} is not supported; use https or http, "
            "or upload the files to a datastore",
            code="url.scheme",
        )
    if "@" in split.netloc:
        raise UserError(
            f"url of host {split.hostname!r} carries a user name or password; leave them out",
            code="url.userinfo",
        )
    host, address = _host(split)
    path = quote(split.path or "/", safe=_URL_SAFE.replace("?", ""))
    query = f"?{quote(split.query, safe=_URL_SAFE)}" if split.query else ""
    found = Target(split.scheme, host, _port(split), path + query, address)
    if found.authority in allowed:
        return found
    if found.port not in PORTS.values():
        raise UserError(
            f"url {found.shown} uses port {found.port}; allowed are 80 and 443 and what the "
            "operator lists in STELLWERK_EGRESS_ALLOW",
            code="url.port",
        )
    if address is not None:
        check_address(found, address)
    return found


def check_address(target: Target, address: IpAddress) -> None:
    """Raise ``url.blocked_address`` unless ``address`` is a public one."""
    kind = blocked_kind(address)
    if kind is not None:
        raise UserError(
            f"url {target.shown} leads to a {kind} address, which datasets may not read; "
            f"the operator can permit {target.authority} in STELLWERK_EGRESS_ALLOW",
            code="url.blocked_address",
        )


def blocked_kind(address: IpAddress) -> str | None:
    """Why an address is not public (``loopback``, ``private``, …); None if it is public.

    IPv4 addresses inside IPv6 ones (mapped, compatible, NAT64, 6to4, ISATAP) count as themselves.
    """
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _V4 if address in network), None)
    kind = next((kind for network, kind in _V6 if address in network), None)
    if kind is not None:
        return kind
    embedded = _embedded(address)
    if embedded is not None:
        return blocked_kind(embedded)
    return None if address in _GLOBAL_V6 else "reserved"


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    number = int(address)
    if address in _NAT64 or address in _COMPATIBLE or number >> 32 & 0xFFFF_FFFF in _ISATAP:
        return IPv4Address(number & 0xFFFF_FFFF)
    return None


def _port(split: SplitResult) -> int:
    try:
        port = split.port
    except ValueError:
        port = 0
    if port == 0:
        raise UserError(
            f"url of host {split.hostname!r} has no valid port; leave it out for the usual one",
            code="url.port",
        )
    return port or PORTS[split.scheme]


def _host(split: SplitResult) -> tuple[str, IpAddress | None]:
    """Canonical host; literal addresses in decimal, octal, hex or short form become themselves."""
    text = (split.hostname or "").removesuffix(".")
    try:
        if split.netloc.startswith("["):
            address: IpAddress = IPv6Address(text.replace("%", " "))  # no zones
            return str(address), address
        if text and _NUMBER.match(text.rsplit(".", 1)[-1]):
            address = ip_address(_ipv4_number(text))
            return str(address), address
    except ValueError as error:
        raise UserError(f"url host {text[:80]!r} is no valid address", code="url.host") from error
    if len(text) > 253 or not _HOST.match(text):
        raise UserError(
            f"url host {text[:80]!r} is no host name; write it in ASCII (xn--… for others)",
            code="url.host",
        )
    return text, None


def _ipv4_number(text: str) -> int:
    """The number of an IPv4 address as browsers and inet_aton read it; ValueError otherwise."""
    parts = text.split(".")
    if len(parts) > 4 or not all(_NUMBER.match(part) for part in parts):
        raise ValueError(text)
    numbers = [_number(part) for part in parts]
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(parts)):
        raise ValueError(text)
    return numbers[-1] + sum(number << 8 * (3 - i) for i, number in enumerate(numbers[:-1]))


def _number(part: str) -> int:
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8) if part.startswith("0") else int(part)
