"""What a Dockerfile says, read as the engine's own builder reads it. Pure.

A build is found, bounded and cleared away by a label of the platform's. What could take that off,
or hide a line from this reader, is refused.
"""

import json
import re
from collections.abc import Iterator

from stellwerk.dockerfile_buildkit import mounted, wrong_flag, wrong_syntax
from stellwerk.dockerfile_text import Instruction, cut_flags, instructions, lines
from stellwerk.environment_requirement import InvalidEnvironment

OURS = "stellwerk."
"""How labels begin that are the platform's."""
Label = tuple[str, str]

_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
"""What ends a line, or is nothing, to some readers and not to others; a tab is not among them."""
_ESCAPE = re.compile(r"#\s*escape\s*=\s*[^\\\s]", re.IGNORECASE)
_FROM = re.compile(r"(?P<image>\S+)(?:\s+AS\s+(?P<stage>\S+))?", re.IGNORECASE)
_REMOTE = re.compile(r"[^/\s]*://|[^/\s]+@[^/\s]+:|git@")
_ARG = re.compile(r"""(?<!\w)(\w+)=("[^"]*"|'[^']*'|\S*)""")  # from a word's begin: in linear time
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}$]*))?\})")
_QUOTING = re.compile(r"[\"'\\]")
_WORD = r"""(?:"(?:\\.|[^"\\])*"|%s|\\.|[^\s"'\\]|["'\\])+"""
# Whether a backslash escapes within single quotes depends on the builder: both are tried.
_LABELS = [re.compile(_WORD % single) for single in (r"'[^']*'", r"'(?:\\.|[^'\\])*'")]


def check_dockerfile(text: str, field: str) -> None:
    """Raises InvalidEnvironment (env.dockerfile) for what builds nothing, or not under watch."""

    def refused(got: str, hint: str) -> InvalidEnvironment:
        return InvalidEnvironment("env.dockerfile", field=field, got=got.strip()[:60], hint=hint)

    if hidden := _hidden(text):
        number, character = hidden
        hint = f"Line {number}: take the control character U+{ord(character):04X} out."
        raise refused(ascii(character)[1:-1], hint)
    found = list(instructions(text))
    if not any(each.steps[0] == "FROM" for each in found):
        raise refused(text, "A Dockerfile needs a line FROM <image>.")
    if top := _wrong_top(found):
        raise refused(top[0].raw, top[1])
    if wrong := wrong_syntax(text):
        raise refused(wrong[1], f"Line {wrong[0]}: no syntax but docker/dockerfile is read here.")
    for each in found:
        if why := each.unclear or wrong_flag(each) or _wrong_label(each):
            raise refused(each.raw, f"Line {each.line}: {why}")
    for each, image, _ in _stages(found):
        if "$" in image:
            hint = "name the image, or give the variable a default by ARG above the first FROM."
            raise refused(each.raw, f"Line {each.line}: {hint}")


def bases(dockerfile: str) -> list[str]:
    """The images that a Dockerfile begins with."""
    stages: set[str] = {"scratch"}
    found: list[str] = []
    for _, image, stage in _stages(list(instructions(dockerfile))):
        if image.lower() not in stages and image not in found:
            found.append(image)
        stages.add(stage.lower())
    return found


def labelled(dockerfile: str, label: Label) -> str:
    """The Dockerfile with a label from the first step of every stage on, whatever others it sets.

    What a build leaves when it is cut off, containers and images without a name, bears it too.
    """
    found = []
    for each in instructions(dockerfile):
        found.append(each.raw)
        if each.steps[0] in {"FROM", "LABEL"}:
            found.append(f'LABEL {label[0]}="{label[1]}"')
    return "\n".join(found) + "\n"


def fetching(dockerfile: str) -> Instruction | None:
    """The first ADD whose source the engine itself would fetch, or that only a build can know."""
    for each in instructions(dockerfile):
        keyword, rest = each.steps
        if keyword == "ADD":
            sources = (_QUOTING.sub("", word) for word in _words(rest)[:-1])
            if any("$" in word or _REMOTE.match(word) for word in sources):
                return each
    return None


def copying(dockerfile: str) -> list[tuple[Instruction, str]]:
    """Every COPY or mount from no earlier stage, and the image that the engine would fetch."""
    earlier: set[str] = set()
    present: set[str] = set()  # the stage that is being read, by number and by name
    count = 0
    found = []
    for each in instructions(dockerfile):
        keyword, rest = each.steps
        if keyword == "FROM":
            earlier |= present
            match = _FROM.match(cut_flags(rest)[1])
            present = {str(count)} | (
                {match["stage"].lower()} if match and match["stage"] else set()
            )
            count += 1
        sources = [*mounted(each)]
        if keyword in {"COPY", "ADD"}:
            sources += [value for name, value in each.flags if name == "from"]
        found += [(each, source) for source in sources if source.lower() not in earlier]
    return found


def _hidden(text: str) -> tuple[int, str] | None:
    """The first control character that stands in a line, and that line's number."""
    for number, line in enumerate(lines(text), 1):
        if found := _CONTROL.search(line):
            return number, found[0]
    return None


def _wrong_top(found: list[Instruction]) -> tuple[Instruction, str] | None:
    """What stands above the first FROM and must not, and why."""
    for each in found:
        text = each.text.strip()
        if text and not text.startswith("#"):
            wrong = each.steps[0] not in {"FROM", "ARG"}
            return (each, f"Line {each.line}: FROM is first, or ARG before it.") if wrong else None
        if _ESCAPE.match(text):
            return each, "Lines go on with a backslash here; leave the directive out."
    return None


def _stages(found: list[Instruction]) -> Iterator[tuple[Instruction, str, str]]:
    """Every FROM, its image with the defaults of ARGs above filled in, and the stage's name."""
    defaults: dict[str, str] = {}
    began = False
    for each in found:
        keyword, rest = each.steps
        if keyword == "ARG" and not began:
            defaults |= {name: value.strip("\"'") for name, value in _ARG.findall(rest)}
        if keyword == "FROM" and (match := _FROM.match(cut_flags(rest)[1])):
            began = True
            yield each, _filled(match["image"], defaults), match["stage"] or "scratch"


def _filled(image: str, defaults: dict[str, str]) -> str:
    """Variables that nothing gives a value stay as they are."""

    def value(found: re.Match[str]) -> str:
        return defaults.get(found[1] or found[2]) or found[3] or found[0]

    return _VARIABLE.sub(value, image).strip("\"'")


def _wrong_label(instruction: Instruction) -> str | None:
    keyword, rest = instruction.steps
    if keyword != "LABEL":
        return None
    if re.search(rf"(?:^|\s){re.escape(OURS)}", _QUOTING.sub("", rest), re.IGNORECASE):
        return f"labels that begin with {OURS!r} are the platform's; take another name."
    for pattern in _LABELS:
        words = pattern.findall(rest)
        keys = [word.partition("=")[0] for word in words if "=" in words[0]] or words[:1]
        if any("$" in key for key in keys):
            return "a label's name holds no variable; write it out."
    return None


def _words(rest: str) -> list[str]:
    """Sources and the target of an ADD, without its flags."""
    _, rest = cut_flags(rest)
    try:
        listed, end = json.JSONDecoder().raw_decode(rest)
    except (ValueError, RecursionError):
        return rest.split()
    if not isinstance(listed, list):
        return rest.split()
    return [*map(str, listed), *rest[end:].split()]  # older builders read no further than the list
