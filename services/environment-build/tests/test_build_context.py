"""Which files of a build's folder are sent, and which ignore files are refused. No engine."""

from pathlib import Path

import pytest

from stellwerk_environment_build import build_context
from stellwerk_environment_build.build_context import IGNORE_FILE, MAX_BYTES, ignored, sent
from stellwerk_environment_build.failures import BuildFailedError


def refusal(context: Path) -> str:
    with pytest.raises(BuildFailedError) as caught:
        sent(context, "Dockerfile", ignored(context, IGNORE_FILE))
    failure = caught.value.failure
    assert (failure.reason, failure.code) == ("your-spec", "env.build_context")
    assert failure.message.startswith("build_context: .dockerignore ")
    return failure.message


def test_what_is_ignored_is_not_sent_but_the_dockerfile_always_is(tmp_path: Path) -> None:
    for name in ("a/b.txt", "a/ä.log", "docker/Dockerfile", "docker/secret"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    everything = ["a", "a/b.txt", "a/ä.log", "docker", "docker/Dockerfile", "docker/secret"]
    assert ignored(tmp_path, IGNORE_FILE) == []
    assert sent(tmp_path, "docker/Dockerfile", []) == [*everything, "empty"]
    (tmp_path / IGNORE_FILE).write_bytes(b"# of all\n\n  **/*.log  \ndocker\n\xff\n")
    patterns = ignored(tmp_path, "docker/Dockerfile.dockerignore", IGNORE_FILE)
    assert patterns == ["**/*.log", "docker", "\ufffd"]
    assert sent(tmp_path, "docker/Dockerfile", patterns) == [
        *(IGNORE_FILE, "a", "a/b.txt", "docker/Dockerfile", "empty"),
    ]
    (tmp_path / "docker/Dockerfile.dockerignore").write_text("a\n")
    assert ignored(tmp_path, "docker/Dockerfile.dockerignore", IGNORE_FILE) == ["a"]


def test_patterns_that_no_time_is_enough_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared in the service they would hold up everybody's builds."""
    monkeypatch.setattr(build_context, "LIMIT_S", 5.0)
    (tmp_path / ("a" * 200)).touch()
    (tmp_path / IGNORE_FILE).write_text("*a" * 30 + "b\n")
    assert "within 5 s" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"), [("[z-a]\n", "a pattern that is none"), ("a\n" * MAX_BYTES, "more than")]
)
def test_what_is_no_ignore_file_is_refused(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "a").touch()
    (tmp_path / IGNORE_FILE).write_text(content)
    assert why in refusal(tmp_path)
