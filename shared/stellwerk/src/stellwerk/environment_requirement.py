"""One requirement of an environment: what is accepted, and its one canonical spelling.

Pure text in, text out. A requirement is a name, extras, versions and markers (PEP 508) and
nothing else: no option, no address, no path, because each of those would let a spec choose where
code comes from. Two spellings of the same requirement have the same canonical form.
"""

import re
from collections.abc import Iterable, Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import Specifier
from packaging.utils import canonicalize_name, canonicalize_version

MAX_TEXT_BYTES = 64 * 1024
MAX_REQUIREMENTS = 1000
_SHOWN_CHARACTERS = 120

_INDEX_OPTION = re.compile(
    r"^(-i|-f|--(index|extra-index|default-index|find-links|no-index|trusted))"
)
_EDITABLE_OPTION = re.compile(r"^(-e|--editable)\b")
_DIRECT = re.compile(r"(^|@\s*)([a-z][a-z0-9+.-]*://|(git|hg|svn|bzr)\+)", re.IGNORECASE)
_PATH = re.compile(
    r"^(\.{1,2}$|\.{0,2}[/\\]|~|[A-Za-z]:[/\\])|@\s*(\.{0,2}/|file:)|\.(whl|tar\.gz|zip)$"
)
_COMMENT = re.compile(r"(^|\s)#.*$")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class InvalidEnvironment(ValueError):  # noqa: N818 - the name users meet in the documentation
    """An environment description that cannot be used.

    ``field`` says where, ``got`` what stood there (shortened; None where ``field`` says it all),
    ``hint`` what to do about it; ``said`` is both as a sentence. ``code`` is stable and meant for
    programs.
    """

    def __init__(self, code: str, *, field: str, got: str | None = None, hint: str) -> None:
        self.code = code
        self.field = field
        self.hint = self.said = hint
        if got is not None:
            shown = got if len(got) <= _SHOWN_CHARACTERS else got[:_SHOWN_CHARACTERS] + "…"
            self.said = f"got {shown!r}. {hint}"
        super().__init__(f"{field}: {self.said}")


def check_text(text: str, field: str, limit: int | None = None) -> str:
    """``text`` without a byte order mark.

    Raises InvalidEnvironment (env.too_large, env.syntax) above ``limit`` bytes (64 KiB) or with
    control characters.
    """
    limit = limit or MAX_TEXT_BYTES
    size = len(text.encode(errors="replace"))
    if size > limit:
        raise InvalidEnvironment(
            "env.too_large",
            field=field,
            got=f"{size} bytes",
            hint=f"The limit is {limit} bytes; list only the packages you import.",
        )
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise InvalidEnvironment(
            "env.syntax",
            field=f"{field} line {line}",
            got=found.group(),
            hint="Control characters are not allowed; save the file as plain UTF-8 text.",
        )
    return text.removeprefix("\ufeff")


def read_requirements(text: str, field: str = "requirements") -> tuple[str, ...]:
    """The requirements of a requirements.txt, each checked, in the order they stand.

    Raises InvalidEnvironment that names the line.
    """
    found = []
    for number, line in _logical_lines(check_text(text, field)):
        parse_requirement(line, f"{field} line {number}")
        found.append(" ".join(line.split()))
    return tuple(found)


def parse_requirement(text: str, field: str) -> Requirement:
    """``text`` as a requirement. Raises InvalidEnvironment for anything but PEP 508 name forms."""
    stripped = text.strip()
    _refuse_foreign_sources(stripped, field)
    try:
        requirement = Requirement(stripped)
    except (InvalidRequirement, RecursionError) as error:
        is_deep = isinstance(error, RecursionError)
        reason = "its marker is nested too deeply" if is_deep else str(error).splitlines()[0]
        raise InvalidEnvironment(
            "env.requirement",
            field=field,
            got=stripped,
            hint=f"This is not a requirement ({reason}). Write for example numpy>=1.26,<3.",
        ) from error
    if requirement.url is not None:
        raise _direct_reference(stripped, field)
    return requirement


def normalise_requirements(requirements: Iterable[Requirement]) -> tuple[str, ...]:
    """Canonical spellings, sorted; several lines about one package and marker become one."""
    merged: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
    for requirement in requirements:
        key = (canonicalize_name(requirement.name), str(requirement.marker or ""))
        extras, versions = merged.setdefault(key, (set(), set()))
        extras.update(canonicalize_name(extra) for extra in requirement.extras)
        versions.update(canonical_specifier(each) for each in requirement.specifier)
    return tuple(
        _spell(name, marker, extras, versions)
        for (name, marker), (extras, versions) in sorted(merged.items())
    )


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Non-empty lines without comments, continuation lines joined, each with its first number."""
    pending, first = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _COMMENT.sub("", raw).rstrip()
        first = first or number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        if complete := (pending + line).strip():
            yield first, complete
        pending, first = "", 0
    if complete := pending.strip():
        yield first, complete


def _refuse_foreign_sources(text: str, field: str) -> None:
    if _EDITABLE_OPTION.match(text):
        raise InvalidEnvironment(
            "env.path",
            field=field,
            got=text,
            hint="Editable installs are not possible; put the code into the source folder.",
        )
    if _INDEX_OPTION.match(text):
        raise InvalidEnvironment(
            "env.index_option",
            field=field,
            got=_without_credentials(text),
            hint="Remove it: the operator of this installation chooses the package index.",
        )
    if text.startswith("-") or re.search(r"\s--?[a-z]", text):
        raise InvalidEnvironment(
            "env.option",
            field=field,
            got=_without_credentials(text),
            hint="Options are not allowed; write the requirement alone (hashes are added here).",
        )
    if _PATH.search(text.partition(";")[0].strip()) and "://" not in text:
        raise InvalidEnvironment(
            "env.path",
            field=field,
            got=text,
            hint="Paths are not allowed; put the code into the source folder, or publish it.",
        )
    if _DIRECT.search(text):
        raise _direct_reference(text, field)


def _direct_reference(text: str, field: str) -> InvalidEnvironment:
    return InvalidEnvironment(
        "env.direct_reference",
        field=field,
        got=_without_credentials(text),
        hint="Addresses are not allowed; name a released package and its version.",
    )


def _without_credentials(text: str) -> str:
    return re.sub(r"://[^/\s@]*@", "://***@", text)


def canonical_specifier(specifier: Specifier) -> str:
    """The one spelling of a condition on versions."""
    operator, version = specifier.operator, specifier.version
    if operator == "===":
        return f"==={version}"
    if version.endswith(".*"):
        return f"{operator}{canonicalize_version(version[:-2], strip_trailing_zero=False)}.*"
    # ~=1.4.0 and ~=1.4 differ; for all other operators trailing zeros mean nothing.
    return f"{operator}{canonicalize_version(version, strip_trailing_zero=operator != '~=')}"


def _spell(name: str, marker: str, extras: set[str], versions: set[str]) -> str:
    listed = f"[{','.join(sorted(extras))}]" if extras else ""
    condition = f" ; {marker}" if marker else ""
    return f"{name}{listed}{','.join(sorted(versions))}{condition}"
