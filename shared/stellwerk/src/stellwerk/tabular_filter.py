"""Conditions on columns of a tabular dataset: built by operators, kept as JSON, evaluated later.

``dataset["age"] > 30`` is ``["gt", ["column", "age"], 30]``.
"""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from stellwerk.errors import UserError

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
}


class Condition:
    """A column, or something said of columns; ``tree`` is its JSON. ``&``, ``|``, ``~`` join."""

    def __init__(self, tree: list[Any]) -> None:
        self.tree = tree

    __hash__ = object.__hash__  # == builds a condition

    def __bool__(self) -> bool:
        raise UserError("a condition on columns is joined with &, | and ~, not and, or, not")

    def __eq__(self, other: object) -> "Condition":  # type: ignore[override]
        return self._with("eq", other)

    def __ne__(self, other: object) -> "Condition":  # type: ignore[override]
        return self._with("ne", other)

    def __lt__(self, other: object) -> "Condition":
        return self._with("lt", other)

    def __le__(self, other: object) -> "Condition":
        return self._with("le", other)

    def __gt__(self, other: object) -> "Condition":
        return self._with("gt", other)

    def __ge__(self, other: object) -> "Condition":
        return self._with("ge", other)

    def __and__(self, other: object) -> "Condition":
        return self._with("and", other)

    def __or__(self, other: object) -> "Condition":
        return self._with("or", other)

    def __invert__(self) -> "Condition":
        return Condition(["not", self.tree])

    def is_null(self) -> "Condition":
        """Whether the column has no value."""
        return Condition(["null", self.tree])

    def _with(self, operation: str, other: object) -> "Condition":
        return Condition([operation, self.tree, _literal(other)])


def column(name: str) -> Condition:
    """The column of this name."""
    return Condition(["column", name])


def evaluate(frame: Any, tree: Any) -> Any:
    """The value of a condition for each row of a pandas frame. Raises UserError."""
    match tree:
        case ["column", str(name)]:
            if name not in frame.columns:
                raise UserError(
                    f"filter: there is no column {name!r}; columns are "
                    f"{', '.join(map(str, frame.columns))}",
                    code="dataset.column",
                )
            return frame[name]
        case ["time", str(text)]:
            return datetime.fromisoformat(text)
        case ["not", part]:
            return ~evaluate(frame, part)
        case ["null", part]:
            return evaluate(frame, part).isna()
        case [str(operation), first, second] if operation in _COMPARISONS:
            return _COMPARISONS[operation](evaluate(frame, first), evaluate(frame, second))
        case list() | dict():
            raise UserError(f"filter: {str(tree)[:100]} is no condition", code="dataset.filter")
        case _:
            return tree


def _literal(value: object) -> Any:
    if isinstance(value, Condition):
        return value.tree
    if isinstance(value, date):
        return ["time", value.isoformat()]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "item"):  # a number of numpy
        return value.item()
    raise UserError(
        f"filter: got {type(value).__name__}; compare columns with text, numbers, times or columns",
        code="dataset.filter",
    )
