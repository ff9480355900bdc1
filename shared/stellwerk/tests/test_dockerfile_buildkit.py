"""What only BuildKit reads: here-documents, flags and syntax lines; what is refused of it. Pure."""

import pytest

from stellwerk.dockerfile import bases, check_dockerfile, labelled
from stellwerk.dockerfile_buildkit import Need, needs, syntax, without_directives
from stellwerk.dockerfile_text import instructions
from stellwerk.environment_requirement import InvalidEnvironment

DOCUMENTS = """\
FROM a
RUN <<EOF
FROM hidden
LABEL stellwerk.run=y \\
EOF
COPY --chmod=600 <<one.txt <<-"two" /to/
# one
one.txt
\ttwo is below
\ttwo
RUN 3<<'X' cat \\
  > /y
EOF
X
RUN python3 - <<E | cat && echo "a << b" ${A:-x}
E
FROM b
"""


def test_here_documents_are_no_instructions() -> None:
    check_dockerfile(DOCUMENTS, "dockerfile")
    found = list(instructions(DOCUMENTS))
    assert [(each.line, each.documents) for each in found] == [
        (1, ()), (2, ("EOF",)), (6, ("one.txt", "two")), (11, ("X",)), (15, ("E",)), (17, ()),
    ]  # fmt: skip
    assert bases(DOCUMENTS) == ["a", "b"]
    assert "\n".join(each.raw for each in found) + "\n" == DOCUMENTS
    assert labelled(DOCUMENTS, ("k", "v")).count("LABEL k") == 2


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("RUN cat <<EOF\nx", "no line is EOF"),
        ("RUN cat <<EOF\n EOF", "no line is EOF"),
        ("RUN cat << EOF\nEOF", "without spaces"),
        ("RUN cat <<\\EOF\nEOF", "without spaces"),
        ("RUN cat <<E$X\nE$X", "without spaces"),
        ("RUN x=$(cat <<EOF)\nEOF)", "without spaces"),
        ("RUN echo it's <<EOF\nEOF", "open quotes"),
        ("RUN echo ${A/b/c} <<EOF\nEOF", "with a pattern"),
        ('RUN ["a"] <<EOF\nEOF', "begins as a list"),
        ("ONBUILD RUN <<EOF\nEOF", "ONBUILD"),
    ],
)
def test_what_builders_may_read_in_several_ways_is_refused(line: str, why: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        check_dockerfile(f"FROM a\n{line}\n", "dockerfile")
    assert (caught.value.code, caught.value.field) == ("env.dockerfile", "dockerfile")
    assert "Line 2: " in caught.value.hint
    assert why in caught.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "RUN cat <<< $X", "RUN cat<<EOF", 'RUN echo "a <<EOF"', 'RUN ["cat", "<<EOF"]',
        "RUN echo $((1<<2))", "ENV A=<<EOF", "RUN echo \\<<EOF",
    ],
)  # fmt: skip
def test_what_is_no_here_document(line: str) -> None:
    text = f"FROM a\n{line}\nRUN true\n"
    check_dockerfile(text, "dockerfile")
    assert len(list(instructions(text))) == 3
    assert needs(text) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("RUN --network=host true", "--network"),
        ("RUN --net\\work=ho'st' true", "--network"),
        ("RUN --security=insecure true", "no more rights"),
        ("RUN --device=nvidia.com/gpu=all true", "no flag --device"),
        ("RUN --mount=type=secret,id=x true", "no secrets"),
        ("RUN --mount=type=cache,target=/c --mount=type=SSH true", "no secrets"),
        ("RUN --mount=type=bind,type=secret,id=x true", "no secrets"),
        ("RUN --mount=type=$T,id=x true", "has a type of bind, cache, tmpfs"),
        ("RUN --mount=from=$X,target=/x true", "no variable after from="),
        ("RUN --mount='\"type=secret\",id=x' true", "without quotes"),
        ("RUN -\\\n-mount=type=ssh true", "no secrets"),
        ("ONBUILD RUN --network=host true", "--network"),
        ("COPY --form=x /x /x", "no flag --form"),
    ],
)
def test_flags_that_lift_a_wall_are_refused(line: str, why: str) -> None:
    with pytest.raises(InvalidEnvironment) as caught:
        check_dockerfile(f"FROM a\n{line}\n", "dockerfile")
    assert why in caught.value.hint
    assert caught.value.hint.startswith("Line 2: ")


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("FROM a\nRUN --mount=type=cache,target=/c true\n", Need(2, "RUN --mount")),
        ("FROM a\nRUN --network=none true\n", Need(2, "RUN --network", recent=True)),
        ("FROM a\nCOPY --chmod=1 a b\n", Need(2, "COPY --chmod")),
        ("FROM a\nCOPY --link a b\n", Need(2, "COPY --link", recent=True)),
        ("FROM a\nADD --checksum=x a b\n", Need(2, "ADD --checksum", recent=True)),
        ("FROM a\nRUN <<E\nE\n", Need(2, "a here-document", recent=True)),
        ("FROM --platform=$BUILDPLATFORM a\n", Need(1, "the argument BUILDPLATFORM")),
        ("FROM a\nARG TARGETARCH\n", Need(2, "the argument TARGETARCH")),
    ],
)
def test_what_needs_buildkit(text: str, needed: Need) -> None:
    check_dockerfile(text, "dockerfile")
    assert needs(text) == [needed]


@pytest.mark.parametrize(
    "text",
    [
        "# c\n# syntax=docker/dockerfile:1\nFROM a\n",
        "\n# syntax=docker/dockerfile:1\nFROM a\n",
        "FROM --platform=linux/amd64 a AS b\nCOPY --from=b --chown=1 /a /a\nADD --chown=1 a b\n",
        "FROM a\nHEALTHCHECK --interval=1s CMD true\n",
    ],
)
def test_what_the_classic_builder_knows(text: str) -> None:
    assert needs(text) == []
    assert syntax(text) is None


def test_a_syntax_line() -> None:
    assert syntax("# syntax=docker/dockerfile:1\nFROM a\n") == "docker/dockerfile:1"
    text = "#!x\n# check=skip=all\n#Syntax = docker/dockerfile\nFROM a\n"
    check_dockerfile(text, "dockerfile")
    assert syntax(text) == "docker/dockerfile"


@pytest.mark.parametrize(
    "syntax",
    ["evil", "docker/dockerfile:1 x", "example.org/docker/dockerfile", "docker/dockerfiles:1"],
)
def test_another_reader_is_refused(syntax: str) -> None:
    with pytest.raises(InvalidEnvironment, match="Line 1: no syntax but docker/dockerfile"):
        check_dockerfile(f"# syntax={syntax}\nFROM a\n", "dockerfile")


@pytest.mark.parametrize("first", ["# syntax=x", "#!sh\n# syntax=x", "# check=y\n# syntax=x"])
def test_no_directive_reaches_the_engine(first: str) -> None:
    for mark in ("", "\ufeff"):
        left = without_directives(f"{mark}{first}\nFROM a\n").splitlines()
        assert left == ["#", *first.splitlines()[1:], "FROM a"]
    assert without_directives("FROM a\nRUN <<E\nE\n") == "FROM a\nRUN <<E\nE\n"
