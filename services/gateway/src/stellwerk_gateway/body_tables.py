"""Bodies of requests and answers as tables: what each field is, its limits and its default."""

import html
import json
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_WORDS = {"string": "text", "integer": "whole number", "boolean": "true or false"}
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "minProperties": "at least {} entries",
    "maxProperties": "at most {} entries",
    "pattern": "matches {}",
}


def tables(schemas: Mapping[str, Schema]) -> str:
    """All bodies, each one folded, with an anchor that :func:`kind` links to."""
    return "".join(_table(name, schema) for name, schema in sorted(schemas.items()))


def kind(schema: Schema) -> str:
    """What a value is, as HTML: ``list of text``, a link to a body, the words it may be."""
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(map(kind, schema[choice])))
    if "const" in schema or "enum" in schema:
        words = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{html.escape(json.dumps(word))}</code>" for word in words)
    told = schema.get("type", "any JSON")
    if told == "array":
        told = f"list of {kind(schema.get('items', {}))}"
    elif told == "object" and (values := _values(schema)) is not None:
        told = f"object: name to {kind(values)}"
    return f"{_WORDS.get(told, told)}{_limits(schema)}"


def _values(schema: Schema) -> Schema | None:
    """What the values of a map are; None for what is no map."""
    found = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    return next((each for each in found if isinstance(each, Mapping)), None)


def _limits(schema: Schema) -> str:
    said = [
        words.format(html.escape(str(schema[limit]).removesuffix(".0")))
        for limit, words in _LIMITS.items()
        if limit in schema
    ]
    return f" ({', '.join(said)})" if said else ""


def _table(name: str, schema: Schema) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{html.escape(field)}</code></td><td>{kind(told)}</td>"
        f"<td>{_need(told, needed=field in required)}</td>"
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


def _need(schema: Schema, *, needed: bool) -> str:
    if needed:
        return "required"
    return html.escape(f"default {json.dumps(schema['default'])}") if "default" in schema else ""
