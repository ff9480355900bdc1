"""Turns what pydantic says about a request into one sentence a person can act on. Pure.

Fields are named as the client wrote them (``spec.environment.python``), unknown ones get a
suggestion, and what was sent is repeated except where secrets may stand.
"""

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from stellwerk.refusals import reason
from stellwerk_gateway.problems import HttpError

SHOWN = 100
_PLAIN = {"string_type", "int_type", "float_type", "bool_type"}
"""Branches of a union that are no objects: an object was meant for another one."""
_NO_OBJECT = {"model_type", "model_attributes_type"}
SECRET_FIELDS = frozenset({"environment_variables"})

_CODES = {
    "extra_forbidden": "field.unknown",
    "missing": "field.required",
    "greater_than": "field.range",
    "greater_than_equal": "field.range",
    "less_than": "field.range",
    "less_than_equal": "field.range",
    "too_long": "field.too_long",
    "too_short": "field.too_short",
    "string_too_long": "field.too_long",
    "string_too_short": "field.too_short",
}
_BLAMED = {"source.entrypoint": ("script",), "source.missing": ("source",), "record.value": ("v",)}
"""Codes of rules over a whole model, and the field of it that they blame."""
_TAG_FIELDS = ("kind", "k")
"""Fields that tell the branches of a union apart; each is a Literal."""
_NAME_FIELDS = frozenset({"name", "experiment", "target", "datastore"})

Error = Mapping[str, Any]


class _Place(NamedTuple):
    """Where an error is: the path as written, the models that stand there, the union branch.

    The models are those of the object that holds the field, or of the field that is no object.

    ``union`` is the path of the union it lies in, ``branch`` pydantic's name of the branch.
    """

    path: tuple[str | int, ...]
    models: tuple[type[BaseModel], ...]
    union: tuple[str | int, ...] | None = None
    branch: str = ""


def refusal(errors: Sequence[Error], types_of: Mapping[str, Any]) -> HttpError:
    """The answer to a request that did not validate.

    ``types_of`` has the types of its ``body`` and its ``query``, as far as they are models.
    """
    if (missing := _illegal_id(errors)) is not None:
        return missing
    chosen = _likeliest(errors, types_of)
    error, place = chosen[0]
    code = _code(error, place)
    field = _dotted((*place.path, *_BLAMED.get(code, ())))
    detail = f"{field or 'body'}: {_sentence(error, place)}"
    if len(chosen) > 1:
        others = ", ".join(dict.fromkeys(_dotted(other.path) or "body" for _, other in chosen[1:6]))
        detail += f" Also wrong: {others}."
    return HttpError(422, code, detail, field=field or None)


def _illegal_id(errors: Sequence[Error]) -> HttpError | None:
    """An id in the path that no id can look like names nothing: 404."""
    for error in errors:
        where = error["loc"]
        if where[0] == "path" and error["type"] == "string_pattern_mismatch":
            noun = str(where[1]).removesuffix("_id")
            return HttpError(
                404, f"{noun}.not_found", f"There is no {noun} {_shown(error['input'])}."
            )
    return None


def _likeliest(errors: Sequence[Error], types_of: Mapping[str, Any]) -> list[tuple[Error, _Place]]:
    """All errors outside unions, and of each union only the branch that fits best."""
    unions: dict[tuple[str | int, ...] | None, dict[str, list[tuple[Error, _Place]]]] = {}
    for error in errors:
        place = _locate(error, types_of)
        unions.setdefault(place.union, {}).setdefault(place.branch, []).append((error, place))
    best = [row for branches in unions.values() for row in min(branches.values(), key=_badness)]
    return sorted(best, key=_misspelt_first)


def _badness(rows: list[tuple[Error, _Place]]) -> tuple[int, int]:
    strangers = sum(_code(error, place) == "field.unknown" for error, place in rows)
    others = sum(error["type"] in _PLAIN and isinstance(error["input"], dict) for error, _ in rows)
    return strangers + len(rows) + 9 * others, -sum(
        bool(_close(error, place)) for error, place in rows
    )


def _misspelt_first(row: tuple[Error, _Place]) -> int:
    """A misspelt field explains a missing one: say it first."""
    return 0 if row[0]["type"] == "extra_forbidden" else 1


def _locate(error: Error, types_of: Mapping[str, Any]) -> _Place:
    """Follow an error's location through the types, leaving out names of union branches."""
    part_of_request, *where = error["loc"]
    path: list[str | int] = ["header"] if part_of_request == "header" else []
    union, branch = None, ""
    choices = _choices(types_of.get(part_of_request))
    for index, part in enumerate(where):
        labelled = [choice for choice in choices if _is_label(part, choice)]
        if len(choices) > 1 and labelled:
            union, branch, choices = tuple(path), str(part), labelled
            continue
        path.append(part)
        if index < len(where) - 1 or error["type"] in _NO_OBJECT:
            choices = [inner for choice in choices for inner in _inside(choice, part)]
    models = tuple(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
    return _Place(tuple(path), models, union, branch)


def _is_label(part: str | int, choice: Any) -> bool:
    """Whether a location part is pydantic's name of this union branch, not a field."""
    name = getattr(choice, "__name__", "")
    if part == name or (isinstance(part, str) and part.endswith(f", {name}]")):
        return True
    fields = getattr(choice, "model_fields", {})
    return any(part in get_args(fields[tag].annotation) for tag in _TAG_FIELDS if tag in fields)


def _choices(annotation: Any) -> list[Any]:
    """The types an annotation allows, unions and Annotated taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _choices(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return [each for part in get_args(annotation) for each in _choices(part)]
    return [annotation]


def _inside(choice: Any, part: str | int) -> list[Any]:
    """What stands at ``part`` of a value of type ``choice``."""
    if isinstance(choice, type) and issubclass(choice, BaseModel):
        field = choice.model_fields.get(str(part))
        return [] if field is None else _choices(field.annotation)
    arguments = get_args(choice)
    return _choices(arguments[-1 if get_origin(choice) is dict else 0]) if arguments else []


def _code(error: Error, place: _Place) -> str:
    kind = str(error["type"])
    if "." in kind:
        return kind
    if kind == "string_pattern_mismatch":
        is_name = bool(place.path) and place.path[-1] in _NAME_FIELDS
        return "name.charset" if is_name else "field.pattern"
    return _CODES.get(kind, "field.invalid")


def _sentence(error: Error, place: _Place) -> str:
    if error["type"] == "missing":
        return "required, but not there."
    if error["type"] == "extra_forbidden":
        close = _close(error, place)
        hint = f"Did you mean {close}? " if close else ""
        return f"there is no such field. {hint}Fields are {_fields(place)}."
    message = reason(error)
    if error["type"] in _NO_OBJECT and place.models:
        message += f" with {_fields(place)}"
    if _is_secret(place) or isinstance(error.get("input"), (dict, list, BaseModel)):
        return f"{message}."
    return f"got {_shown(error.get('input'))}. {message}."


def _fields(place: _Place) -> str:
    return ", ".join(sorted({name for model in place.models for name in model.model_fields}))


def _is_secret(place: _Place) -> bool:
    """Whether what was sent must not be repeated."""
    hidden = any(model.model_config.get("hide_input_in_errors") for model in place.models)
    return hidden or bool(SECRET_FIELDS & set(place.path))


def _close(error: Error, place: _Place) -> str:
    if error["type"] != "extra_forbidden" or not place.path:
        return ""
    known = [name for model in place.models for name in model.model_fields]
    return next(iter(difflib.get_close_matches(str(place.path[-1]), known, n=1)), "")


def _dotted(path: Sequence[str | int]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part[:SHOWN]}"
    return text.removeprefix(".")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
