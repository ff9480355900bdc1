"""Configuration objects: an attribute with a typo is refused, as in v1."""

import difflib
from collections.abc import Iterable


class Section:
    """Base of classes with ``__slots__``; every attribute they have is one of those."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        try:
            object.__setattr__(self, name, value)
        except AttributeError:
            if hasattr(type(self), name):  # a property that cannot be set says so itself
                raise
            raise AttributeError(unknown(self, name)) from None

    def __getattr__(self, name: str) -> object:
        raise AttributeError(unknown(self, name))


def unknown(section: object, name: str, more: Iterable[str] = ()) -> str:
    """Words for an attribute that ``section`` does not have; ``more`` names some that it has."""
    names = {each for each in dir(type(section)) if not callable(getattr(type(section), each))}
    known = sorted(each for each in {*names, *more} if not each.startswith("_"))
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"{type(section).__name__!r} object has no attribute {name!r}; {hint}it has "
        f"{', '.join(known)}"
    )
