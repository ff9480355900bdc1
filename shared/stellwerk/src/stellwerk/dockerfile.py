"""What a Dockerfile says, read as the engine's own builder reads it. Pure.

A build is found, bounded and cleared away by a label of the platform's. What could take that off,
or hide a line from this reader, is refused.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from stellwerk.environment_requirement import InvalidEnvironment

OURS = "stellwerk."
"""How labels begin that are the platform's."""
Label = tuple[str, str]

_CONTINUED = re.compile(r"(?:(?<=[^\\])|^)\\[ \t]*$")
_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
"""What ends a line, or is nothing, to some readers and not to others; a tab is not among them."""
_ESCAPE = re.compile(r"#\s*escape\s*=\s*[^\\\s]", re.IGNORECASE)
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<stage>\S+))?", re.IGNORECASE)
_ARG = re.compile(r"""(\w+)=("[^"]*"|'[^']*'|\S*)""")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}$]*))?\})")
_HERE = re.compile(r"""(?:^|\s)\d*<<-?["']?[A-Za-z_]""")
_QUOTING = re.compile(r"[\"'\\]")
_WORD = r"""(?:"(?:\\.|[^"\\])*"|%s|\\.|[^\s"'\\]|["'\\])+"""
_FLAG = re.compile(r"""--(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s"'\\]|["'\\])*""")
# Whether a backslash escapes within single quotes depends on the builder: both are tried.
_LABELS = [re.compile(_WORD % single) for single in (r"'[^']*'", r"'(?:\\.|[^'\\])*'")]


@dataclass(frozen=True, slots=True)
class Instruction:
    """``line``: where it begins, from 1; ``raw`` as it stands there, ``text`` on one line."""

    line: int
    raw: str
    text: str

    @property
    def steps(self) -> tuple[str, str]:
        """Its keyword and the rest; what ONBUILD keeps for later counts as if it stood here."""
        keyword, _, rest = re.sub(r"\s+", " ", self.text.strip(), count=1).partition(" ")
        while keyword.upper() == "ONBUILD":
            keyword, _, rest = re.sub(r"\s+", " ", rest.strip(), count=1).partition(" ")
        return keyword.upper(), rest.strip()


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
    for each in found:
        if not each.text.lstrip().startswith("#"):
            break
        if _ESCAPE.match(each.text.lstrip()):
            raise refused(each.raw, "Lines go on with a backslash here; leave the directive out.")
    for each in found:
        keyword, rest = each.steps
        if keyword == "LABEL" and (why := _wrong_label(rest)):
            raise refused(each.raw, f"Line {each.line}: {why}")
        if keyword in {"RUN", "COPY", "ADD"} and _HERE.search(rest):
            hint = "the builder knows no here-documents; join commands with && \\."
            raise refused(each.raw, f"Line {each.line}: {hint}")
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
    lines = []
    for each in instructions(dockerfile):
        lines.append(each.raw)
        if each.steps[0] in {"FROM", "LABEL"}:
            lines.append(f'LABEL {label[0]}="{label[1]}"')
    return "\n".join(lines) + "\n"


def fetching(dockerfile: str) -> Instruction | None:
    """The first ADD whose source the engine itself would fetch, or that only a build can know."""
    for each in instructions(dockerfile):
        keyword, rest = each.steps
        if keyword == "ADD":
            sources = (_QUOTING.sub("", word) for word in _words(rest)[:-1])
            if any("://" in word or word.startswith("git@") or "$" in word for word in sources):
                return each
    return None


def copying(dockerfile: str) -> list[tuple[Instruction, str]]:
    """Every COPY --from that names no earlier stage, and the image that the engine would fetch."""
    stages: list[str] = []
    found = []
    for each in instructions(dockerfile):
        keyword, rest = each.steps
        if keyword == "FROM":
            match = _FROM.match(f"FROM {rest}")
            stages.append((match["stage"] or "" if match else "").lower())
        if keyword in {"COPY", "ADD"}:
            flags = (flag.partition("=") for flag in _flags(rest))
            sources = [source for name, _, source in flags if name.lower() == "--from"]
            earlier = {*filter(None, stages[:-1]), *map(str, range(len(stages) - 1))}
            found += [(each, source) for source in sources if source.lower() not in earlier]
    return found


def instructions(text: str) -> Iterator[Instruction]:
    """Lines with those that they go on in; comments and blank lines in between belong to them."""
    raw: list[str] = []
    joined = ""
    first = 1
    for number, line in enumerate(_lines(text), 1):
        if not raw:
            first = number
        raw.append(line)
        bare = line.lstrip()
        if len(raw) > 1 and (not bare or bare.startswith("#")):
            continue
        goes_on = not bare.startswith("#") and _CONTINUED.search(line)
        joined += _CONTINUED.sub("", line)
        if goes_on:
            continue
        yield Instruction(first, "\n".join(raw), joined)
        raw, joined = [], ""
    if raw:
        yield Instruction(first, "\n".join(raw), joined)


def _lines(text: str) -> list[str]:
    """As the engine splits it: at line feeds alone, a carriage return before one left out."""
    lines = text.removeprefix("\ufeff").removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def _hidden(text: str) -> tuple[int, str] | None:
    """The first control character that stands in a line, and that line's number."""
    for number, line in enumerate(_lines(text), 1):
        if found := _CONTROL.search(line):
            return number, found[0]
    return None


def _stages(found: list[Instruction]) -> Iterator[tuple[Instruction, str, str]]:
    """Every FROM, its image with the defaults of ARGs above filled in, and the stage's name."""
    defaults: dict[str, str] = {}
    began = False
    for each in found:
        keyword, rest = each.steps
        if keyword == "ARG" and not began:
            defaults |= {name: value.strip("\"'") for name, value in _ARG.findall(rest)}
        if keyword == "FROM" and (match := _FROM.match(f"FROM {rest}")):
            began = True
            yield each, _filled(match["image"], defaults), match["stage"] or "scratch"


def _filled(image: str, defaults: dict[str, str]) -> str:
    """Variables that nothing gives a value stay as they are."""

    def value(found: re.Match[str]) -> str:
        return defaults.get(found[1] or found[2]) or found[3] or found[0]

    return _VARIABLE.sub(value, image).strip("\"'")


def _wrong_label(rest: str) -> str | None:
    if re.search(rf"(?:^|\s){re.escape(OURS)}", _QUOTING.sub("", rest), re.IGNORECASE):
        return f"labels that begin with {OURS!r} are the platform's; take another name."
    for pattern in _LABELS:
        words = pattern.findall(rest)
        keys = [word.partition("=")[0] for word in words if "=" in words[0]] or words[:1]
        if any("$" in key for key in keys):
            return "a label's name holds no variable; write it out."
    return None


def _flags(rest: str) -> Iterator[str]:
    """The flags that an instruction begins with, their quotes taken off."""
    while match := _FLAG.match(rest):
        yield _QUOTING.sub("", match[0])
        rest = rest[match.end() :].lstrip()


def _words(rest: str) -> list[str]:
    """Sources and the target of an ADD, without its flags."""
    rest = re.sub(r"^(?:--\S+\s+)+", "", rest)
    try:
        listed = json.loads(rest)
    except ValueError:
        return rest.split()
    return [str(each) for each in listed] if isinstance(listed, list) else rest.split()
