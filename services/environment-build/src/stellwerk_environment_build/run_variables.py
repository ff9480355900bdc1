"""Which variables that an image or a package sets a run takes over. Pure."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from stellwerk.events.image import ENVIRONMENT_FOLDER

NOT_TAKEN = (
    "LD_PRELOAD",
    "LD_AUDIT",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "STELLWERK_",
    "AZUREML_",
)
"""How variables begin that may not be set for a run: they are the platform's, or run code."""
MOST_VARIABLES = 200
MOST_CHARACTERS = 32_768
MOST_NAMED = 20
_OWN = {"HOME", "TMPDIR", "HOSTNAME", "VIRTUAL_ENV", "PWD"}
_OF_THE_SHELL = {"PATH", "OLDPWD", "SHLVL", "_", "PS1", "LC_ALL", "LC_CTYPE"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def variables_of(
    pairs: Iterable[tuple[str, str]],
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What a run takes over of an image's variables, and the names of what it does not."""
    taken, left = {}, []
    for name, value in pairs:
        if name.upper().startswith(NOT_TAKEN):
            left.append(name)
        elif name not in _OWN:
            taken[name] = value
    return taken, tuple(sorted(left))


def activated(answer: bytes, place: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """What the activation of conda packages sets for runs, from a worker's answer; and warnings.

    The environment's own ``place`` becomes ENVIRONMENT_FOLDER: in an image it lies elsewhere.
    """
    try:
        said = json.loads(answer)
        found = {str(name): str(value) for name, value in said["variables"].items()}
        failed = bool(said["failed"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}, (_FAILED,)
    taken, left = variables_of(found.items())
    kept = {
        name: value.replace(str(place), ENVIRONMENT_FOLDER)
        for name, value in sorted(taken.items())
        if name not in _OF_THE_SHELL and _NAME.fullmatch(name) and _is_text(value)
    }
    warnings = tuple(_left_out(left))
    size = sum(len(name) + len(value) for name, value in kept.items())
    if len(kept) > MOST_VARIABLES or size > MOST_CHARACTERS:
        said = (
            f"the conda packages set {len(kept)} variables of {size} characters when they are "
            f"activated; runs take over {MOST_VARIABLES} of {MOST_CHARACTERS} at most, so none is "
            "set. Put those that are needed under variables of the definition."
        )
        return {}, (said,)
    return kept, (*warnings, *((_FAILED,) if failed else ()))


def _left_out(names: tuple[str, ...]) -> Iterator[str]:
    """A warning of each, of a number that an event has room for; what is no name is not told."""
    told = [name for name in names if _NAME.fullmatch(name)][:MOST_NAMED]
    for name in told:
        yield f"a conda package sets {name}, which runs do not take over: it is the platform's"
    if more := len(names) - len(told):
        yield f"conda packages set {more} more variables that are the platform's, not taken over"


_FAILED = (
    "an activation script of a conda package broke off, so what it sets is missing in runs; put "
    "it under variables of the definition"
)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
