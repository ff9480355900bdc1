"""Filters by tag or property: ``name`` (it is there) or ``name=value``. Pure.

The API takes one filter of a kind; further ones are applied here.
"""

from collections.abc import Mapping, Sequence

Labels = Mapping[str, str | None]


def filters(given: Labels | str | None) -> list[str]:
    """v1's ways to filter, a text or a dictionary, as filter texts."""
    if given is None or isinstance(given, str):
        return [given] if given else []
    return [name if value is None else f"{name}={value}" for name, value in given.items()]


def pairs(given: Sequence[str | Sequence[str]] | None) -> list[str]:
    """v1's other way to filter, a list of texts (is there) and pairs (has this value)."""
    return [each if isinstance(each, str) else "=".join(each) for each in given or ()]


def first(wanted: Sequence[str]) -> str | None:
    """The filter that the API applies."""
    return wanted[0] if wanted else None


def fits(labels: Labels, wanted: Sequence[str]) -> bool:
    """Whether all filters are met."""
    return all(_meets(labels, each) for each in wanted)


def texts(values: Mapping[str, object] | None) -> dict[str, str | None]:
    """Labels as they are stored: values become text, None stays."""
    return {name: None if value is None else str(value) for name, value in (values or {}).items()}


def _meets(labels: Labels, wanted: str) -> bool:
    name, equal, value = wanted.partition("=")
    return name in labels and (not equal or labels[name] == value)
