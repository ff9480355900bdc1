"""Dockerfiles, read as the builder reads them; what would escape its bounds is refused. Pure."""

import time

import pytest

from stellwerk.dockerfile import bases, check_dockerfile, copying, fetching, labelled
from stellwerk.dockerfile_text import instructions
from stellwerk.environment_requirement import InvalidEnvironment

DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG BASE=x
FROM python:3.11 AS build
RUN echo \\
# a comment in between
FROM not-an-instruction && \\
  true
from ${BASE}
FROM --platform=linux/amd64 \\
  debian:12
COPY --from=build /a /a
FROM build
FROM scratch
"""


def test_images_that_a_dockerfile_begins_with() -> None:
    assert bases(DOCKERFILE) == ["python:3.11", "x", "debian:12"]


def test_every_stage_is_labelled_and_nothing_else_changes() -> None:
    text = labelled(DOCKERFILE, ("k", "v"))
    assert text.count('LABEL k="v"') == 5
    assert "FROM python:3.11 AS build\nLABEL" in text
    assert '  debian:12\nLABEL k="v"\nCOPY' in text
    assert "\n".join(line for line in text.splitlines() if "LABEL" not in line) + "\n" == DOCKERFILE


def test_the_label_comes_again_after_every_label() -> None:
    text = labelled("FROM a\nLABEL x=y \\\n  z=w\nRUN true\n", ("k", "v"))
    assert text == 'FROM a\nLABEL k="v"\nLABEL x=y \\\n  z=w\nLABEL k="v"\nRUN true\n'


def test_a_stage_is_seen_however_its_line_is_cut() -> None:
    text = "FROM a\nRUN echo \\\\\nFR\\\n\n# c\nOM b\n"
    assert bases(text) == ["a", "b"]
    assert labelled(text, ("k", "v")).endswith('OM b\nLABEL k="v"\n')


@pytest.mark.parametrize(
    "lines",
    [
        "LABEL stellwerk.build=x stellwerk.run=y",
        "LABEL a=b \\\n\n  stellwerk.run=y",
        "LABEL a=b \\\n# c\n  stellwerk.run=y",
        'label "stellwerk.run"=y',
        'LABEL stell"werk.run"=y',
        "LABEL stell\\werk.run=y",
        "LAB\\\nEL stellwerk.run=y",
        "LABEL stellwerk.run y",
        "LABEL $K=y",
        "LABEL $K y",
        'LABEL a="b c" x$K=y',
        "LABEL a='\\' $K=y",
        "LABEL a='\\'' $K=y '",
        "ONBUILD LABEL stellwerk.run=y",
        "RUN echo \\\\\nLABEL stellwerk.run=y",
        "FROM $UNKNOWN",
    ],
)
def test_what_takes_the_label_off_is_refused(lines: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        check_dockerfile(f"FROM a\n{lines}\n", "dockerfile")
    assert (caught.value.code, caught.value.field) == ("env.dockerfile", "dockerfile")
    assert "Line " in caught.value.hint


@pytest.mark.parametrize(
    "character",
    [
        *("\x00", "\x08", "\x0b", "\x0c", "\r", "\x1b", "\x1c", "\x1d", "\x1e", "\x1f", "\x7f"),
        *("\x85", "\x9f", "\u2028", "\u2029"),
    ],
)
@pytest.mark.parametrize("hidden", ["COPY --from=x / /", "ADD https://x.invalid/ /", "LABEL a=b"])
def test_characters_that_end_a_line_to_some_readers_alone_are_refused(
    character: str, hidden: str
) -> None:
    """To the engine the second line is all comment; to others its end goes on in the third."""
    with pytest.raises(InvalidEnvironment) as caught:
        check_dockerfile(f"FROM a\r\n#{character}RUN x \\\n{hidden}\n", "dockerfile")
    said = f"Line 2: take the control character U+{ord(character):04X} out."
    assert (caught.value.code, caught.value.hint) == ("env.dockerfile", said)
    assert character not in str(caught.value)


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028"])
def test_lines_end_where_the_engine_ends_them(character: str) -> None:
    found = list(instructions(f"FROM a\r\n#{character}COPY\r\nRUN x \\\r\n  y\r\n\r\n"))
    assert [each.line for each in found] == [1, 2, 3, 5]
    assert found[2].text == "RUN x   y"


def test_another_escape_is_refused() -> None:
    with pytest.raises(InvalidEnvironment, match="directive"):
        check_dockerfile("# syntax=x\n# Escape = `\nFROM a\n", "dockerfile")


@pytest.mark.parametrize("line", ["//syntax=evil", "RUN true", "LABEL a=b"])
def test_nothing_stands_before_the_first_image(line: str) -> None:
    check_dockerfile("# c\n\nARG A=1\nFROM a\n", "dockerfile")
    with pytest.raises(InvalidEnvironment, match="Line 2: FROM is first"):
        check_dockerfile(f"# c\n{line}\nFROM a\n", "dockerfile")


@pytest.mark.parametrize(
    "lines",
    [
        'LABEL version=$VERSION maintainer=\'a b\' "x y"="$A $B=c"',
        "LABEL org.x.note=not-stellwerk.build",
        "RUN cat <<< $X && echo stellwerk.run=1",
        "# LABEL stellwerk.run=y",
        "ARG X=1\nFROM ${X:-b} AS c\nFROM C",
    ],
)
def test_other_labels_are_fine(lines: str) -> None:
    check_dockerfile(f"ARG X=b\nFROM $X\n{lines}\n", "dockerfile")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ADD https://example.org/x /x", True),
        ("add --chown=1 a HTTP://example.org/x /x", True),
        ("ADD git@example.org:a/b.git /x", True),
        ("ADD me@example.org:a/b.git /x", True),
        ("ADD --keep-git-dir=true ssh://example.org/a/b.git /x", True),
        ('ADD ["http:\\u002f/example.org/x", "/x"] y', True),
        ('ADD ["http:\\u002f/example.org/x", "/x"]', True),
        ('ADD ht"tp:"//example.org/x /x', True),
        ("ADD $WHERE /x", True),
        ("ONBUILD ADD https://example.org/x /x", True),
        ("A\\\nDD https:\\\n//example.org/x /x", True),
        ("ADD a b.tar.gz $HOME/x", False),
        ("RUN echo https://example.org", False),
    ],
)
def test_what_the_engine_would_fetch(line: str, found: bool) -> None:
    assert (fetching(f"FROM a\nRUN true\n{line}\n") is not None) == found
    if (each := fetching(f"FROM a\nRUN true\n{line}\n")) is not None:
        assert each.line == 3


@pytest.mark.parametrize(
    ("line", "image"),
    [
        ("COPY --from=busybox:1 /bin/sh /x", "busybox:1"),
        ('copy --chown="a b" --FROM=busybox /bin/sh /x', "busybox"),
        ('COPY --fr"om"=busy\\box /bin/sh /x', "busybox"),
        ("COPY --from=late /x /x", "late"),
        ("COPY --from=second /x /x", "second"),
        ("COPY --from=1 /x /x", "1"),
        ("COPY --from=$WHERE /x /x", "$WHERE"),
        ("ONBUILD COPY --from=busybox /x /x", "busybox"),
        ("COPY --link \\\n  --from=busybox /x /x", "busybox"),
        ("COPY --chown='\\'' --from=busybox /x'y /z", "busybox"),
        ("COPY --chown=\u00e0--from=busybox /x /z", "busybox"),
        ("RUN --mount=from=busybox,target=/b true", "busybox"),
        ("RUN --mount=type=cache,target=/c --mount=TYPE=bind,FROM=1 true", "1"),
        ("RUN --mount=type=bind,from=first,source=/x,target=/x true", None),
        ("RUN --mount=type=bind,source=from=busybox,target=/x true", None),
        ("RUN <<EOF\nCOPY --from=busybox\nEOF", None),
        ("COPY --from=First /x /x", None),
        ("COPY --from=0 /x /x", None),
        ("COPY --chown=1 x --from=busybox /x", None),
        ("RUN echo COPY --from=busybox", None),
    ],
)
def test_what_the_engine_would_pull_to_copy_from(line: str, image: str | None) -> None:
    found = copying(f"FROM a AS first\nFROM b AS second\n{line}\nFROM c AS late\n")
    assert [(each.line, source) for each, source in found] == ([(3, image)] if image else [])


LONG = 65_000
"""As long as a Dockerfile may be."""


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (f"# syntax=docker/dockerfile{' ' * LONG}:1\nFROM a\n", "no syntax but"),
        (f"ARG {'a' * LONG}\nFROM a\n", None),
        (f"FROM a\nRUN {'[' * LONG} <<E\nE\n", "begins as a list"),
        (f"FROM a\nADD {'[' * LONG} /b\n", None),
    ],
    ids=["syntax", "argument", "list", "sources"],
)
def test_a_dockerfile_that_is_made_to_be_hard_to_read_is_read_at_once(
    text: str, field: str | None
) -> None:
    """It is read where everybody's requests are answered."""
    began = time.process_time()
    if field is None:
        check_dockerfile(text, "dockerfile")
    else:
        with pytest.raises(InvalidEnvironment, match=field):
            check_dockerfile(text, "dockerfile")
    assert (bases(text), fetching(text) is None, copying(text)) == (["a"], True, [])
    assert time.process_time() - began < 2
