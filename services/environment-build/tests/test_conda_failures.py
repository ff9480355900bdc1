"""What errors of the conda solver mean, told apart by kind and words."""

from pathlib import Path

import pytest

from stellwerk_environment_build.conda_failures import of_conda, without_places


@pytest.mark.parametrize(
    ("error", "words", "reason", "code", "retryable"),
    [
        ("unsolvable", "nothing provides x", "your-spec", "env.unsatisfiable", False),
        ("spec", "unable to parse", "your-spec", "env.conda_package", False),
        ("internal", "KeyError", "internal", "env.build_failed", True),
        ("channel", "404 Not Found", "your-spec", "env.channel_unknown", False),
        ("hash", "x has no SHA-256", "your-spec", "env.hash_required", False),
        ("gone", "x-1.0-0.conda", "your-spec", "env.lock_gone", False),
        ("unreachable", "dns error", "index-unreachable", "env.channel_unreachable", True),
        ("index", "expected value at line 1", "index-unreachable", "env.channel_broken", True),
        ("install", "hash mismatch: expected a", "hash-mismatch", "env.hash_mismatch", False),
        (
            "install",
            "error sending request for url",
            "index-unreachable",
            "env.channel_unreachable",
            True,
        ),
        ("install", "No space left on device (os error 28)", "disk-full", "env.disk_full", True),
        ("unreachable", "write: os error 28", "disk-full", "env.disk_full", True),
        ("denied", "401 Unauthorized", "internal", "env.channel_denied", False),
        ("logins", "cannot be read", "internal", "env.channel_logins", False),
        ("install", "invalid archive", "your-spec", "env.conda_package_broken", False),
    ],
)
def test_kinds_of_failures(error: str, words: str, reason: str, code: str, retryable: bool) -> None:
    failure = of_conda(error, words, ("ours", "conda-forge"))
    assert (failure.reason, failure.code, failure.retryable) == (reason, code, retryable)
    assert words in failure.message or code == "env.disk_full"


def test_logins_and_length_of_the_solvers_words() -> None:
    failure = of_conda("unreachable", "https://ann:secret@example.invalid/c " + "x" * 9000, ())
    assert "secret" not in failure.message
    assert len(failure.message) < 2200


def test_folders_of_the_builder_are_not_shown(tmp_path: Path) -> None:
    cache, work = tmp_path / "cache/.conda", tmp_path / "cache/.building/abc"
    for place in (
        cache / "packages/tool-1.0-0-12ab",
        cache / "unpacking/tmp_1x/tool-1.0-0-12ab",
        work / "records/packages/tool-1.0-0",
    ):
        said = without_places(f"failed to read '{place}/lib/x': no such file", cache, work)
        assert said == "failed to read 'lib/x': no such file"
    assert without_places(f"failed to link {work}/env/bin/x", cache, work) == (
        "failed to link env/bin/x"
    )
