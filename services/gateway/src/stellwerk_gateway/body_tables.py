"""Bodies of requests and answers as tables: what each field is, its limits and its default."""

import html
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Style:
    """How a page writes: a link to a body by its name, and text that is code."""

    link: Callable[[str], str]
    code: Callable[[str], str]


HTML = Style(
    link=lambda name: f'<a href="#{html.escape(name)}">{html.escape(name)}</a>',
    code=lambda text: f"<code>{html.escape(text)}</code>",
)

_WORDS = {"string": "text", "integer": "whole number", "boolean": "true or false"}
_RANGES = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " entries"),
    ("minProperties", "maxProperties", " entries"),
)


def tables(schemas: Mapping[str, Schema]) -> str:
    """All bodies, each one folded, with an anchor that :func:`kind` links to."""
    return "".join(_table(name, schema) for name, schema in sorted(schemas.items()))


def kind(schema: Schema, style: Style = HTML) -> str:
    """What a value is: ``list of text``, a link to a body, the words it may be; its limits."""
    if "$ref" in schema:
        return style.link(schema["$ref"].rpartition("/")[2])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(kind(each, style) for each in schema[choice]))
    if "const" in schema or "enum" in schema:
        words = schema.get("enum", [schema.get("const")])
        return " or ".join(style.code(json.dumps(word)) for word in words)
    told = schema.get("type", "any JSON")
    if told == "array":
        told = f"list of {kind(schema.get('items', {}), style)}"
    elif told == "object" and (values := _values(schema)) is not None:
        told = f"object: name to {kind(values, style)}"
    return f"{_WORDS.get(told, told)}{_limits(schema, style)}"


def need(schema: Schema, style: Style = HTML, *, needed: bool) -> str:
    """Whether a field has to be there, or what it is when it is not."""
    if needed:
        return "required"
    known = "default" in schema
    return f"default {style.code(json.dumps(schema['default']))}" if known else "optional"


def _values(schema: Schema) -> Schema | None:
    """What the values of a map are; None for what is no map."""
    found = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    return next((each for each in found if isinstance(each, Mapping)), None)


def _limits(schema: Schema, style: Style) -> str:
    said = []
    for least, most, unit in _RANGES:
        low, high = (_number(schema.get(each)) for each in (least, most))
        if low and high:
            said.append(f"{low} to {high}{unit}")
        elif low or high:
            said.append(f"at least {low}{unit}" if low else f"at most {high}{unit}")
    for limit, words in (("exclusiveMinimum", "more than"), ("exclusiveMaximum", "less than")):
        if limit in schema:
            said.append(f"{words} {_number(schema[limit])}")
    if "pattern" in schema:
        said.append(f"matches {style.code(schema['pattern'])}")
    return f" ({', '.join(said)})" if said else ""


def _number(value: float | None) -> str:
    return "" if value is None else str(int(value) if value == int(value) else value)


def _table(name: str, schema: Schema) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{html.escape(field)}</code></td><td>{kind(told)}</td>"
        f"<td>{need(told, needed=field in required)}</td>"
        f"<td>{html.escape(told.get('description', ''))}</td></tr>"
        for field, told in schema.get("properties", {}).items()
    )
    about = html.escape(schema.get("description", ""))
    return (
        f"<details><summary><code>{html.escape(name)}</code></summary>"
        f'<p id="{html.escape(name)}">{about or kind(schema)}</p>'
        + (f"<table>{rows}</table>" if rows else "")
        + "</details>"
    )
