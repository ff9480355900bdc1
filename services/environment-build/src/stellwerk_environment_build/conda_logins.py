"""Logins of conda channels: the file that ``RATTLER_AUTH_FILE`` names, as the solver reads it.

``{host: {"BearerToken": …}}``, ``{"CondaToken": …}`` (a part of the address) or ``{"BasicHTTP":
{"username": …, "password": …}}``; a host has no port. The solver sends them; here they are read so
that nothing of them is ever told.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

_TOKEN = re.compile(r"(?<=/t/)[^/\s]+(?=/)")
_SHORTEST_SECRET = 4


class UnreadableLoginsError(ValueError):
    """The file is not as it should be; says nothing of its content."""


@dataclass(frozen=True)
class ChannelLogins:
    """The hosts that there is a login for, and what must not be told."""

    hosts: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, place: str | None) -> Self:
        """Those of the file at ``place``; none without one. Raises UnreadableLoginsError."""
        if not place:
            return cls()
        try:
            found = json.loads(Path(place).read_bytes())
            secrets = sorted({text for each in found.values() for text in _texts(each)})
            return cls(tuple(found), tuple(secrets))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, AttributeError, RecursionError):
            raise UnreadableLoginsError(
                "The file of channel logins (RATTLER_AUTH_FILE) cannot be read; write "
                '{"conda.example.org": {"BasicHTTP": {"username": …, "password": …}}}, '
                '{"BearerToken": …} or {"CondaToken": …}.'
            ) from None

    def cover(self, host: str) -> bool:
        """Whether there is a login for ``host``; ``*.example.org`` is for all below."""
        return any(
            host == each or (each.startswith("*.") and host.endswith(each[1:]))
            for each in self.hosts
        )

    def hide(self, text: str) -> str:
        """``text`` without any of them, nor a token in an address."""
        for secret in sorted(self.secrets, key=len, reverse=True):  # one may be a part of another
            text = text.replace(secret, "***")
        return _TOKEN.sub("***", text)


def _texts(login: Any) -> list[str]:
    if isinstance(login, str):
        return [login] if len(login) >= _SHORTEST_SECRET else []
    parts = {name: each for name, each in login.items() if name != "username"}
    return [text for each in parts.values() for text in _texts(each)]
