"""A refused field in words: what pydantic says, as a person would say it, and as the SDK's error.

The gateway uses the same words, so that a field is refused alike on both sides of the wire.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from stellwerk.errors import UserError
from stellwerk.ids import ID_PATTERN, MODEL_NAME_PATTERN, NAME_PATTERN
from stellwerk.runspec import COMPUTE_NAME_PATTERN, DIGEST_PATTERN, VARIABLE_NAME_PATTERN

SHOWN = 100

_PATTERNS = {
    NAME_PATTERN: "Use 1 to 255 letters (a-Z), digits, spaces and . _ -, a letter or digit first",
    MODEL_NAME_PATTERN: "Use 1 to 255 letters (a-Z), digits and . _ -, a letter or digit first",
    COMPUTE_NAME_PATTERN: "Use 1 to 32 of a-z, 0-9 and -, and no - first or last",
    ID_PATTERN: "Use 1 to 40 of a-z, 0-9 and -, and no - first or last",
    VARIABLE_NAME_PATTERN: "Use 1 to 128 letters (a-Z), digits and _, and no digit first",
    DIGEST_PATTERN: "It must be a SHA-256 in 64 lower-case hex digits",
}
_SENTENCES = {
    "extra_forbidden": "There is no such field",
    "missing": "It is required",
    "model_attributes_type": "It must be a JSON object",
    "model_type": "It must be a JSON object",
    "dict_type": "It must be a JSON object",
    "list_type": "It must be a list",
    "tuple_type": "It must be a list",
    "string_type": "It must be text",
    "int_type": "It must be a whole number",
    "int_parsing": "It must be a whole number",
    "int_from_float": "It must be a whole number",
    "float_type": "It must be a number",
    "float_parsing": "It must be a number",
    "bool_type": "It must be true or false",
    "bool_parsing": "It must be true or false",
}
_COUNTED_OR_MISSING = {"missing", "too_long", "too_short"}
"""Errors where what was given says nothing more."""


def reason(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors asks for, as a sentence without its full stop."""
    context = error.get("ctx") or {}
    pattern = context.get("pattern")
    if pattern is not None and pattern in _PATTERNS:
        return _PATTERNS[pattern]
    if error["type"] == "too_long":
        has = context.get("actual_length") or "too many"
        return f"It has {has} entries; at most {context.get('max_length')} are allowed"
    if error["type"] == "too_short":
        return f"It must have at least {context.get('min_length')} entries"
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        tag = str(context["discriminator"]).strip("'")
        if "expected_tags" not in context:
            return f"{tag} is required"
        return f"{tag} must be {' or '.join(str(context['expected_tags']).rsplit(', ', 1))}"
    if error["type"] in _SENTENCES:
        return _SENTENCES[error["type"]]
    message = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    return message.replace("Input should be", "It must be", 1)


def invalid_field(error: ValidationError) -> UserError:
    """The SDK's error for the first field that a request model refuses."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"] if part != "[key]") or "spec"
    got = repr(first["input"])
    shown = got if len(got) <= SHOWN else got[:SHOWN] + "…"
    said = "" if first["type"] in _COUNTED_OR_MISSING else f"got {shown}. "
    return UserError(f"{field}: {said}{reason(first)}.", code="spec.invalid", field=field)


@contextmanager
def naming_the_field() -> Iterator[None]:
    """Raise UserError where a request model refuses what the caller gave."""
    try:
        yield
    except ValidationError as error:
        raise invalid_field(error) from error
