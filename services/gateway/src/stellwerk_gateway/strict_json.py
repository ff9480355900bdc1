"""What JSON a body may be: UTF-8, one value, no key twice, no NaN, not too deep. Pure.

Lenient parsers disagree about duplicate keys, lone surrogates and NaN; two services that read
the same body differently are a hole, so the gateway refuses what it could misread.
"""

import itertools
import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 32

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_MAYBE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """Not acceptable; ``offset`` is the byte where it shows, None where that is not known."""

    def __init__(self, message: str, offset: int | None) -> None:
        super().__init__(message)
        self.offset = offset


def check_json(body: bytes) -> None:
    """Raise JsonError unless ``body`` is JSON that every parser reads the same way."""
    text = _decode(body)
    _check_depth(body)
    try:
        json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        raise JsonError(error.msg, len(text[: error.pos].encode())) from error
    except JsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonError("a number has too many digits", None) from error
    _check_surrogates(text)


def _decode(body: bytes) -> str:
    if body.startswith((b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")):
        raise JsonError("a byte order mark; send plain UTF-8", 0)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise JsonError("the bytes are not UTF-8", error.start) from error
    if (at := text.find("\x00")) >= 0:
        raise JsonError("a NUL character; send plain UTF-8, not UTF-16", len(text[:at].encode()))
    return text


def _check_depth(body: bytes) -> None:
    brackets = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    depth = max(itertools.accumulate(map(_STEP.__getitem__, brackets)), default=0)
    if depth > MAX_DEPTH:
        raise JsonError(f"nested {depth} levels deep; the limit is {MAX_DEPTH}", None)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonError(f"key {key[:100]!r} stands twice in one object", None)
            seen.add(key)
    return found


def _no_constant(text: str) -> NoReturn:
    raise JsonError(f"{text} is no JSON number", None)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError(f"number {text[:40]} is out of range", None)
    return number


def _check_surrogates(text: str) -> None:
    """Refuse halves of surrogate pairs: they cannot be stored as UTF-8."""
    if not _MAYBE_SURROGATE.search(text):
        return
    high: re.Match[str] | None = None
    for escape in _ESCAPE.finditer(text):
        unit = int(escape[1], 16) if escape[1] else 0
        is_low = 0xDC00 <= unit <= 0xDFFF
        if high is not None and not (is_low and escape.start() == high.end()):
            break
        if is_low and high is None:
            high = escape
            break
        high = escape if 0xD800 <= unit <= 0xDBFF else None
    if high is not None:
        raise JsonError("half of a surrogate pair", len(text[: high.start()].encode()))
