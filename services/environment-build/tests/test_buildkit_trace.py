"""What BuildKit tells, as lines for people. One record is of a real build."""

import base64

import pytest

from stellwerk_environment_build.buildkit_trace import Narration

FROM, RUN = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def message(*fields: tuple[int, bytes | str | int]) -> bytes:
    """In protobuf; lengths below 16384."""
    found = b""
    for number, value in fields:
        if isinstance(value, int):
            found += bytes([number << 3, value])
            continue
        data = value.encode() if isinstance(value, str) else value
        size = len(data)
        found += bytes([number << 3 | 2])
        found += bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        found += data
    return found


def step(digest: str, name: str, *more: tuple[int, bytes | str | int]) -> bytes:
    return message((1, message((1, digest), (2, FROM), (3, name), *more)))


def words(digest: str, text: str) -> bytes:
    return message((3, message((1, digest), (2, b"\x08\x01"), (3, 1), (4, text))))


STARTED = (5, b"\x08\x01")


def test_steps_and_their_words() -> None:
    told = Narration()
    records = [
        step(FROM, "[internal] load remote build context", STARTED),
        step(FROM, "[1/2] FROM docker.io/library/a:1", (4, 1), STARTED),
        step(RUN, "[2/2] RUN make"),
        step(RUN, "[2/2] RUN make", STARTED),
        words(RUN, "one\ntw"),
        words(RUN, "o\n\n\x1b[31m10%\r20%\r\nend"),
        step(RUN, "[2/2] RUN make", STARTED, (6, b"\x08\x02"), (7, "exit code: 1")),
    ]
    lines = [line for record in records for line in told.tell(record)]
    assert lines == ["[1/2] FROM docker.io/library/a:1", "[2/2] RUN make", "one", "two", "20%"]
    assert list(told.end()) == ["end"]


def test_who_speaks_is_said_again() -> None:
    told = Narration()
    steps = step(FROM, "[a 1/1] RUN x", STARTED) + step(RUN, "[b 1/1] RUN y", STARTED)
    lines = [*told.tell(steps), *told.tell(words(FROM, "1\n") + words(RUN, "2\n3\n"))]
    assert lines == [
        "[a 1/1] RUN x", "[b 1/1] RUN y", "[a 1/1] RUN x", "1", "[b 1/1] RUN y", "2", "3",
    ]  # fmt: skip


def test_steps_that_were_built_before() -> None:
    told = Narration()
    assert [*told.tell(step(RUN, "[2/2] RUN y", (4, 1)) * 2)] == ["[2/2] RUN y (as built before)"]


def test_a_record_of_a_real_engine() -> None:
    record = (
        "Cp4CCkdzaGEyNTY6MmE0N2RmZTAxNDZhNjQ0NzhhNGNmZGNhMGJkNjBlN2M2NjFjMWFlMzRlN2E5ZTc0NzBmNjYz"
        "ZDdlMjg0MWE4ORJHc2hhMjU2Ojk4ZGYwN2VmMGE4NDk4ZjkwNTYxOTQwZDk3YzUyY2ZkZTk4M2M5YmY3N2Y0YmI2"
        "YTM3NmQ2MDc4OTM1NDgyN2YSR3NoYTI1NjpjMmVjMmEzMWJhYWM1MTE0YjQ3OWY5MDg2ZjFhODljYTY1OGNmYzZj"
        "Y2E4ZTJhZTkwMmNhY2U4OWE0NmE4MDZlGiZbMi8yXSBDT1BZIC0tbGluayAtLWNobW9kPTcwMCBhLnR4dCAveioL"
        "CLe1n9gGELr4qF8yDAi3tZ/YBhCCiMOUAQ=="
    )
    assert [*Narration().tell(base64.b64decode(record))] == [
        "[2/2] COPY --link --chmod=700 a.txt /z"
    ]


@pytest.mark.parametrize(
    "record", [b"\x0a", b"\x0a\x05ab", b"\x80", b"\xff" * 20, b"\x08\x01", b"\x0b\x01\x01"]
)
def test_what_is_no_record(record: bytes) -> None:
    with pytest.raises(ValueError, match=r"message|number"):
        list(Narration().tell(record))


def test_unknown_fields_are_passed_over() -> None:
    more = b"\x21" + bytes(8) + b"\x2d" + bytes(4) + b"\x32\x01x"
    assert [*Narration().tell(more + step(RUN, "[1/1] RUN y", STARTED))] == ["[1/1] RUN y"]
