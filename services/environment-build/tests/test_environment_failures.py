"""Which failure means what, and that no secret survives."""

import pytest

from stellwerk_environment_build.conda_logins import ChannelLogins
from stellwerk_environment_build.failures import (
    BuildFailedError,
    Phase,
    classify,
    redact,
    timed_out,
)
from stellwerk_environment_build.lock_hashes import held_to

UNREACHABLE = """Using Python 3.11
error: Request failed after 3 retries in 10.7s
  cause: Failed to fetch: http://user:secret@127.0.0.1:9/simple/six/
  cause: tcp connect error
"""


@pytest.mark.parametrize(
    ("phase", "returncode", "output", "reason", "code", "retryable"),
    [
        (
            "install",
            2,
            "error: x: No space left on device (os error 28)",
            "disk-full",
            "env.disk_full",
            True,
        ),
        (
            "compile",
            1,
            "OSError: [Errno 28] No space left on device",
            "disk-full",
            "env.disk_full",
            True,
        ),
        ("install", -9, "", "killed", "env.build_killed", True),
        ("compile", 137, "", "killed", "env.build_killed", True),
        ("resolve", 2, UNREACHABLE, "index-unreachable", "env.index_unreachable", True),
        ("install", 2, UNREACHABLE, "index-unreachable", "env.index_unreachable", True),
        ("resolve", 1, "error: No solution found", "your-spec", "env.unsatisfiable", False),
        ("resolve", 2, "error: Couldn't parse requirement", "your-spec", "env.requirement", False),
        (
            "install",
            1,
            "error: Hash mismatch for `six==1`",
            "hash-mismatch",
            "env.hash_mismatch",
            False,
        ),
        ("compile", 125, "no container: x", "internal", "env.engine_unreachable", True),
        ("install", 70, "panic", "internal", "env.build_failed", False),
        ("create", 2, "error: odd", "internal", "env.build_failed", False),
    ],
)
def test_failures_are_told_apart(
    phase: Phase, returncode: int, output: str, reason: str, code: str, retryable: bool
) -> None:
    failure = classify(phase, returncode, output)
    assert (failure.reason, failure.code, failure.retryable) == (reason, code, retryable)
    assert failure.message
    assert "secret" not in failure.message


def test_own_words_are_kept_but_bounded() -> None:
    failure = classify(
        "resolve", 1, "noise\nerror: No solution found\n  cause: Because a\n" + "b" * 9000
    )
    assert "noise" not in failure.message
    assert "No solution found\nBecause a\n" in failure.message
    assert len(failure.message) < 2300


def test_timeout_names_the_phase_and_the_limit() -> None:
    assert "installation took longer than 90 s" in timed_out("install", 90).message


def test_redaction() -> None:
    text = "from https://bob:pw@host/simple and token abcdef"
    assert redact(text, ("abcdef",)) == "from https://***@host/simple and token ***"


def test_package_locked_for_other_systems_alone_is_the_locks_fault() -> None:
    lock = "tool==1.0 \\\n    --hash=sha256:" + "a" * 64 + "\n"
    with pytest.raises(BuildFailedError) as caught:
        held_to(lock, {"tool==1": ()})
    failure = caught.value.failure
    assert (failure.reason, failure.code) == ("your-spec", "env.no_wheel")
    assert "tool==1.0" in failure.message


def test_a_secret_that_another_begins_with_shows_nothing_of_the_longer() -> None:
    secrets = ("abcd", "abcdefgh")
    assert redact("x abcdefgh y", secrets) == "x *** y"
    assert ChannelLogins(secrets=secrets).hide("x abcdefgh y") == "x *** y"
