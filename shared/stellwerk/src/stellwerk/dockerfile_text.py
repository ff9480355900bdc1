"""How a Dockerfile is cut into instructions, flags and here-documents: as the builders do. Pure.

What a reader misses it cannot refuse. So flags are cut byte by byte as the engine cuts them, and of
here-documents those alone are taken that every version of BuildKit reads alike.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_CONTINUED = re.compile(r"(?:(?<=[^\\])|^)\\[ \t]*$")
_BLANKS = "\t\n\v\f\r \x85\xa0"
"""What ends a flag. The engine looks at bytes, so the last two are halves of letters as well."""
_WORD = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s'"\\])+|(?P<open>['"\\])""")
_HERE = re.compile(r"[0-9]*<<(?P<tabs>-?)(?P<name>[^<]*)")
_HERE_NAME = re.compile(r"""([\w.+/-]+)|"([\w.+/-]+)"|'([\w.+/-]+)'""", re.ASCII)
_ODD_VARIABLE = re.compile(r"\$\{(?!\w+(?::?[-+][\w./-]*)?\})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Instruction:
    """``line``: where it begins, from 1; ``raw`` as it stands there, ``text`` on one line.

    ``documents``: the names of its here-documents, which ``raw`` holds and ``text`` does not;
    ``unclear``: why it cannot be told where they end.
    """

    line: int
    raw: str
    text: str
    documents: tuple[str, ...] = ()
    unclear: str | None = None

    @property
    def steps(self) -> tuple[str, str]:
        """Its keyword and the rest; what ONBUILD keeps for later counts as if it stood here."""
        keyword, rest = _keyword(self.text)
        while keyword == "ONBUILD":
            keyword, rest = _keyword(rest)
        return keyword, rest

    @property
    def flags(self) -> list[tuple[str, str]]:
        """Names in small letters, without dashes, and values; quotes are taken off."""
        cut = (flag[2:].partition("=") for flag in cut_flags(self.steps[1])[0])
        return [(name.lower(), value) for name, _, value in cut]


def instructions(text: str) -> Iterator[Instruction]:
    """Lines with those that they go on in, and with their here-documents.

    Comments and blank lines in between belong to them.
    """
    pending = enumerate(lines(text), 1)
    raw: list[str] = []
    joined = ""
    first = 1
    for number, line in pending:
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
        documents, unclear = _documents(joined)
        for name, tabs in documents:
            if not _take(pending, raw, name, tabs=tabs):
                unclear = f"no line is {name}, with which its here-document would end."
        names = tuple(name for name, _ in documents)
        yield Instruction(first, "\n".join(raw), joined, names, unclear)
        raw, joined = [], ""
    if raw:
        yield Instruction(first, "\n".join(raw), joined)


def lines(text: str) -> list[str]:
    """As the engine splits it: at line feeds alone, a carriage return before one left out."""
    found = text.removeprefix("\ufeff").removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in found]


def cut_flags(rest: str) -> tuple[list[str], str]:
    """The flags that follow a keyword, without quotes, and what comes after them."""
    data = rest.encode(errors="replace").decode("latin-1")
    found: list[str] = []
    at = 0
    while True:
        while data[at : at + 1] and data[at] in _BLANKS:
            at += 1
        if not data.startswith("--", at):
            break
        word = quote = ""
        while at < len(data) and (quote or data[at] not in _BLANKS):
            if quote and data[at] == quote:
                quote = ""
            elif not quote and data[at] in "\"'":
                quote = data[at]
            else:
                at += data[at] == "\\"
                word += data[at : at + 1]
            at += 1
        if word == "--":
            break
        found.append(word)
    return [_text(word) for word in found], _text(data[at:]).strip()


def _text(data: str) -> str:
    return data.encode("latin-1").decode(errors="replace")


def _keyword(text: str) -> tuple[str, str]:
    keyword, _, rest = re.sub(r"\s+", " ", text.strip(), count=1).partition(" ")
    return keyword.upper(), rest.strip()


def _documents(text: str) -> tuple[list[tuple[str, bool]], str | None]:
    """Names of here-documents, whether tabs before lines are left out, and what is unclear."""
    keyword, rest = _keyword(text)
    inner = Instruction(0, text, text).steps[0]
    if inner not in {"RUN", "COPY", "ADD"} or "<<" not in text:
        return [], None
    is_list = _is_list(cut_flags(rest)[1])
    words = list(_WORD.finditer(text))
    found = [match for word in words if (match := _HERE.fullmatch(word[0]))]
    if is_list or not found:
        return [], None
    if is_list is None:
        return [], "it begins as a list, with a here-document behind it."
    if keyword == "ONBUILD":
        return [], "ONBUILD takes no here-document here."
    if any(word["open"] for word in words) or _ODD_VARIABLE.search(text):
        return [], "write open quotes and ${…} with a pattern into the here-document alone."
    documents = []
    for each in found:
        name = _HERE_NAME.fullmatch(each["name"])
        if name is None:
            return [], "write a here-document as <<NAME without spaces, and a shift as 1<<2."
        documents.append((name[name.lastindex or 0], bool(each["tabs"])))
    return documents, None


def _is_list(arguments: str) -> bool | None:
    """Whether they are a list of words in JSON; None where builders differ."""
    if not arguments.startswith("["):
        return False
    try:
        value, end = json.JSONDecoder().raw_decode(arguments)
    except RecursionError:
        return None
    except ValueError:
        return False
    whole = not arguments[end:].strip() and all(isinstance(each, str) for each in value)
    return True if whole else None


def _take(pending: Iterator[tuple[int, str]], raw: list[str], name: str, *, tabs: bool) -> bool:
    """Move a here-document's lines to ``raw``; whether its end was there."""
    for _, line in pending:
        raw.append(line)
        if (line.lstrip("\t") if tabs else line) == name:
            return True
    return False
