"""What a secret may be, and what its sealed form is bound to. Pure: no I/O, no clock.

No message here repeats a value, nor any part of one.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from stellwerk.api import MAX_SECRET_BYTES
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.ids import VAULT_NAME_PATTERN

_NAME = re.compile(VAULT_NAME_PATTERN)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value as stored: ``key_id`` names the master key, ``data`` is nonce and ciphertext."""

    key_id: str
    data: bytes


def folded(name: str) -> str:
    """The form under which a name is found: letter case does not matter. Raises UserError."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"name: got {name[:150]!r}; use 1 to 127 letters, digits and '-'",
            code="name.charset",
            field="name",
        )
    return name.lower()


def check_value(value: str) -> None:
    """Raise UserError for a value that is too long."""
    if (size := len(value.encode())) > MAX_SECRET_BYTES:
        raise UserError(
            f"value: it has {size} bytes; a secret has at most {MAX_SECRET_BYTES}. Keep larger "
            "things in a file of a dataset, and its password here",
            code="field.too_long",
            field="value",
        )


def bound_to(name: str, key_id: str) -> bytes:
    """What a sealed value is bound to: under another name or key id it does not open."""
    return f"stellwerk/secret/{name}/{key_id}".encode()


def not_found(name: str, known: Iterable[str]) -> NotFoundError:
    """The error for a secret that is not there."""
    near = difflib.get_close_matches(name.lower(), list(known), 3, 0.6)
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
    return NotFoundError(
        f"name: there is no secret {name!r}{hint}", code="secret.not_found", field="name"
    )


def too_many(limit: int) -> ConflictError:
    """The error for one secret more than are kept."""
    return ConflictError(
        f"name: there are {limit} secrets already, which is the limit; delete some",
        code="secret.too_many",
        field="name",
    )


def unreadable(name: str, key_id: str, *, known: bool) -> ConflictError:
    """The error for a value that its master key does not open, or whose key is gone."""
    why = "was damaged in the store" if known else f"needs master key {key_id}, which is not there"
    return ConflictError(
        f"name: the value of {name!r} {why}; put the key back into the master keys file, or set "
        "the secret again",
        code="secret.unreadable",
        field="name",
    )
