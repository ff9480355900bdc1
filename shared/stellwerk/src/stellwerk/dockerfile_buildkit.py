"""What of a Dockerfile only BuildKit understands, and what of that is refused. Pure.

The engine's own BuildKit reads it. A ``# syntax`` line would have it pull another reader, which
nothing here bounds: the line is taken for what it asks, and never reaches the engine.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stellwerk.dockerfile_text import Instruction, instructions, lines

_DIRECTIVE = re.compile(r"#\s*(?P<name>[a-zA-Z][a-zA-Z0-9]*)\s*=(?P<value>.+)")
_OFFICIAL = re.compile(
    r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?"
)
_PLATFORM = re.compile(r"\b(?:TARGET|BUILD)(?:PLATFORM|OS|ARCH|VARIANT)\b")
_FLAGS = {
    "FROM": {"platform"},
    "RUN": {"mount", "network", "security"},
    "COPY": {"from", "chown", "chmod", "link", "parents", "exclude"},
    "ADD": {"chown", "chmod", "link", "checksum", "keep-git-dir", "unpack", "exclude"},
}
_CLASSIC = {"FROM": {"platform"}, "COPY": {"from", "chown"}, "ADD": {"chown"}}
_EARLY = {"mount", "chmod"}
"""Flags that BuildKit of engines before 23 knows too."""
_MOUNTS = {"bind", "cache", "tmpfs"}


@dataclass(frozen=True, slots=True)
class Need:
    """``recent``: the BuildKit of engines before 23 does not know it."""

    line: int
    what: str
    recent: bool = False


def syntax(dockerfile: str) -> str | None:
    """What a syntax line names; who writes one asks for BuildKit."""
    return next((value for _, value in _syntax(dockerfile)), None)


def needs(dockerfile: str) -> list[Need]:
    """What the classic builder does not know, in the order of the lines."""
    found: list[Need] = []
    for each in instructions(dockerfile):
        keyword, rest = each.steps
        if each.documents:
            found.append(Need(each.line, "a here-document", recent=True))
        for name, _ in each.flags if keyword in _FLAGS else ():
            if name not in _CLASSIC.get(keyword, ()):
                found.append(Need(each.line, f"{keyword} --{name}", recent=name not in _EARLY))
        if keyword in {"ARG", "FROM"} and (match := _PLATFORM.search(rest)):
            found.append(Need(each.line, f"the argument {match[0]}"))
    return found


def without_directives(dockerfile: str) -> str:
    """The same lines, none of which is a directive: there is none after a first comment."""
    first, *others = lines(dockerfile)
    return "\n".join(["#" if first.startswith("#") else first, *others]) + "\n"


def wrong_syntax(dockerfile: str) -> tuple[int, str] | None:
    """The line and value of a directive that names another reader than Docker's own."""
    return next((each for each in _syntax(dockerfile) if not _OFFICIAL.fullmatch(each[1])), None)


def wrong_flag(instruction: Instruction) -> str | None:
    """Why a flag is refused: it lifts a wall, wants what builds here have not, or is unknown."""
    keyword, _ = instruction.steps
    if keyword not in _FLAGS:
        return None
    for name, value in instruction.flags:
        if name not in _FLAGS[keyword]:
            return f"{keyword} has no flag --{name}; take it out."
        if name == "network" and value not in {"none", "default"}:
            return "RUN --network is none or default; the operator decides what default is."
        if name == "security" and value != "sandbox":
            return "steps have no more rights than others; leave RUN --security out."
        if name == "mount" and (why := _wrong_mount(value)):
            return why
    return None


def mounted(instruction: Instruction) -> Iterator[str]:
    """The stages or images that a step has files of mounted from."""
    if instruction.steps[0] == "RUN":
        mounts = (value for name, value in instruction.flags if name == "mount")
        yield from (value for each in mounts for key, value in _fields(each) if key == "from")


def _wrong_mount(mount: str) -> str | None:
    if '"' in mount:
        return "write RUN --mount without quotes."
    for key, value in _fields(mount):
        if key == "type" and value.lower() in {"secret", "ssh"}:
            return (
                f"builds here have no secrets, so no RUN --mount=type={value.lower()}; let the "
                "platform install what is private, or bring it in the build context."
            )
        if key == "type" and value.lower() not in _MOUNTS:
            return f"RUN --mount has a type of {', '.join(sorted(_MOUNTS))}."
        if key == "from" and "$" in value:
            return "RUN --mount takes no variable after from=; name a stage."
    return None


def _fields(mount: str) -> Iterable[tuple[str, str]]:
    cut = (field.partition("=") for field in mount.split(","))
    return ((key.lower(), value) for key, _, value in cut)


def _syntax(dockerfile: str) -> Iterator[tuple[int, str]]:
    """Directives named syntax, with their lines; the engine looks for them at the top alone."""
    for number, line in enumerate(lines(dockerfile), 1):
        match = _DIRECTIVE.fullmatch(line)
        if match is None and not (number == 1 and line.startswith("#!")):
            return
        if match and match["name"].lower() == "syntax":
            yield number, match["value"].strip()
