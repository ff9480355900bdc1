"""Data hosts that are gone: where the bytes of a web address are read instead.

``rewrites.json`` of the package ``stellwerk`` is built in; an operator's file of the same form
(``STELLWERK_URL_REWRITES``) is looked at first. A rule takes a prefix off the address and puts what
is left behind each candidate, in order: a mirror, which is a folder of this machine that the
operator names (``STELLWERK_URL_MIRRORS`` or ``mirrors`` in the file), or another web address, which
is read through the same guard as any. The address itself comes last. No other way leads to a
local file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import unquote

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from stellwerk.errors import UserError
from stellwerk.manifest import safe_path

HERE = Path(__file__).parent
BUILT_IN = Path(str(resources.files("stellwerk"))) / "rewrites.json"
BUILT_IN_MIRRORS = {"diabetes": HERE / "mirrors" / "diabetes"}

Prefix = Annotated[str, StringConstraints(pattern=r"^https?://[^/?#]+/([^?#]*/)?$")]
"""A web address up to and with a slash."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Candidate(_Strict):
    """Where to read instead: a mirror by name, or another prefix."""

    mirror: str | None = None
    url: Prefix | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.mirror is None) == (self.url is None):
            raise ValueError("give exactly one of mirror and url")
        return self


class Rule(_Strict):
    """Addresses that begin with one of ``prefixes`` are read from a candidate."""

    name: str
    prefixes: Annotated[tuple[Prefix, ...], Field(min_length=1)]
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]


class RewriteFile(_Strict):
    """The form of both files. ``mirrors``: name → folder of this machine."""

    mirrors: dict[str, Path] = {}
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """One place to read an address from: ``file`` of this machine, or ``url``.

    ``shown`` names the place for people, without paths of this machine.
    """

    shown: str
    file: Path | None = None
    url: str | None = None


class Rewrites:
    """Rules in the order they are asked; ``mirrors``: name → folder."""

    def __init__(self, rules: tuple[Rule, ...], mirrors: Mapping[str, Path]) -> None:
        self._rules, self._mirrors = rules, dict(mirrors)

    @classmethod
    def load(cls, operators: Path | None = None, mirrors: Mapping[str, Path] | None = None) -> Self:
        """An operator's rules, then the built-in ones. Raises UserError naming a wrong field."""
        own = _read(operators) if operators is not None else RewriteFile()
        named = {**BUILT_IN_MIRRORS, **(mirrors or {}), **own.mirrors}
        return cls((*own.rules, *_read(BUILT_IN).rules), named)

    def copies(self, url: str) -> Iterator[Copy]:
        """Where ``url`` may be read instead, in order; nothing for an address without a rule."""
        address = url.partition("?")[0]
        for rule in self._rules:
            for prefix in rule.prefixes:
                if address.startswith(prefix) and len(address) > len(prefix):
                    rest = address.removeprefix(prefix)
                    found = (self._copy(candidate, rest) for candidate in rule.candidates)
                    yield from (each for each in found if each is not None)
                    return

    def _copy(self, candidate: Candidate, rest: str) -> Copy | None:
        if candidate.url is not None:
            return Copy(candidate.url, url=candidate.url + rest)
        folder = self._mirrors.get(candidate.mirror or "")
        file = None if folder is None else _inside(folder, rest)
        return (
            None if file is None else Copy(f"the platform's mirror {candidate.mirror!r}", file=file)
        )


def _inside(folder: Path, rest: str) -> Path | None:
    """A regular file below ``folder``, however ``rest`` is written; None if there is none."""
    try:
        file = (folder / safe_path(unquote(rest))).resolve()
    except (ValueError, OSError):
        return None
    return file if file.is_relative_to(folder.resolve()) and file.is_file() else None


def _read(path: Path) -> RewriteFile:
    try:
        return RewriteFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"STELLWERK_URL_REWRITES: {path} cannot be read: {error.strerror}", code="url.rewrites"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"STELLWERK_URL_REWRITES: {path}: {field}: {first['msg']}", code="url.rewrites"
        ) from error
