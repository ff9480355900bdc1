"""Orders of the run list and its cursors. Pure.

A cursor is the place of the last item shown. It is opaque to clients and checked like any input:
one that was not made here, or for another order, is refused.
"""

import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Literal

from stellwerk.errors import UserError

ORDERS = ("newest", "oldest", "name", "duration", "status", "metric:<name>")
_DESCENDING = {"newest": True, "oldest": False, "name": False, "duration": True, "status": False}
MAX_CURSOR = 8000

Key = str | float | None
Column = Literal["position", "name", "duration", "status", "metric"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a list is ordered by; ``metric`` is the metric's name where that is a metric."""

    text: str
    column: Column
    descending: bool
    metric: str | None = None


def parse_order(text: str) -> Order:
    """An order from its name. Raises UserError ``order.invalid``.

    Names and statuses go upwards, newest, longest and highest metric first; `` asc`` or
    `` desc`` behind the name says otherwise.
    """
    name, _, direction = text.rpartition(" ")
    if direction not in {"asc", "desc"} or not name:
        name, direction = text, ""
    if name.startswith("metric:") and len(name) > len("metric:"):
        return Order(text, "metric", direction != "asc", name[len("metric:") :])
    if name not in _DESCENDING or (direction and name in {"newest", "oldest"}):
        raise UserError(
            f"order: got {text[:100]!r}; use {', '.join(ORDERS)}, the last four also with "
            "' asc' or ' desc' behind them.",
            code="order.invalid",
            field="order",
        )
    descending = direction == "desc" if direction else _DESCENDING[name]
    by_position = name in {"newest", "oldest"}
    return Order(text, "position" if by_position else name, descending)  # type: ignore[arg-type]  # checked above


def encode_cursor(order: str, key: Key, position: int) -> str:
    """The cursor behind an item with this key and position."""
    content = json.dumps([order, key, position], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def decode_cursor(order: Order, cursor: str) -> tuple[Key, int]:
    """Key and position behind a cursor. Raises UserError ``cursor.invalid``."""
    key, position = _content(order.text, cursor)
    if order.column == "position" and key is None:
        return key, position
    if order.column in {"name", "status"} and isinstance(key, str):
        return key, position
    if order.column in {"duration", "metric"} and isinstance(key, float) and math.isfinite(key):
        return key, position
    raise _bad()


def encode_name(name: str) -> str:
    """Cursor of a list that is ordered by unique names."""
    return encode_cursor("names", name, 0)


def decode_name(cursor: str) -> str:
    """The name behind a cursor. Raises UserError ``cursor.invalid``."""
    key, _ = _content("names", cursor)
    if not isinstance(key, str):
        raise _bad()
    return key


def _content(order: str, cursor: str) -> tuple[object, int]:
    try:
        if len(cursor) > MAX_CURSOR:
            raise ValueError("too long")
        padded = cursor + "=" * (-len(cursor) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        made_for, key, position = json.loads(raw.decode())
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise _bad() from error
    if made_for != order or type(position) is not int or not 0 <= position < 2**63:
        raise _bad()
    if isinstance(key, str) and not _stored_text(key):
        raise _bad()
    return key, position


def _stored_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def _bad() -> UserError:
    return UserError(
        "cursor: this is no cursor of a list in this order. Leave it out for the first page, "
        "then pass each answer's next_cursor on unchanged, with the same order.",
        code="cursor.invalid",
        field="cursor",
    )
