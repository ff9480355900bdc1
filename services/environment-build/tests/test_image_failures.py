"""Whose fault it is that an image cannot be had or built. Pure."""

import pytest

from stellwerk_environment_build.image_failures import of_dockerfile, of_image, of_pull


@pytest.mark.parametrize(
    ("words", "reason", "code"),
    [
        ("manifest for a:1 not found: manifest unknown", "your-spec", "env.image_not_found"),
        ("pull access denied for a, repository does not exist", "your-spec", "env.image_not_found"),
        (
            "Get https://r/v2/: unauthorized: authentication required",
            "internal",
            "env.registry_denied",
        ),
        ("no basic auth credentials", "internal", "env.registry_denied"),
        (
            "dial tcp 127.0.0.1:9: connection refused",
            "index-unreachable",
            "env.registry_unreachable",
        ),
        ("write /layer: no space left on device", "disk-full", "env.disk_full"),
    ],
)
def test_pull(words: str, reason: str, code: str) -> None:
    found = of_pull("a:1", words)
    assert (found.reason, found.code) == (reason, code)


@pytest.mark.parametrize(
    ("words", "network", "reason", "code"),
    [
        ("The command returned a non-zero code: 3", False, "your-spec", "env.dockerfile_failed"),
        ("Temporary failure in name resolution", False, "your-spec", "env.dockerfile_network"),
        ("Temporary failure in name resolution", True, "index-unreachable", "env.dockerfile_network"),
        ("sh: No space left on device", False, "disk-full", "env.disk_full"),
        ("returned a non-zero code: 137", False, "killed", "env.build_killed"),
        ('process "/bin/sh" did not complete: exit code: 137', False, "killed", "env.build_killed"),
        ("process did not complete: exit code: 1370", False, "your-spec", "env.dockerfile_failed"),
    ],
)  # fmt: skip
def test_dockerfile(words: str, network: bool, reason: str, code: str) -> None:
    found = of_dockerfile(words, network=network)
    assert (found.reason, found.code) == (reason, code)


def test_its_last_whole_lines_are_told_without_passwords() -> None:
    words = "\n".join(f"line {number} {'x' * 90}" for number in range(50))
    found = of_dockerfile(f"{words}\nhttp://u:hidden@host/ exit", network=False)
    told = found.message.splitlines()
    assert told[1].startswith("line 4")
    assert told[-1] == "http://***@host/ exit"
    assert len(found.message) < 1200


def test_push() -> None:
    assert of_image("push", "denied: requested access").code == "env.registry_denied"
    assert of_image("push", "connection refused").code == "env.registry_unreachable"
