"""What engines say of pushes, and how their leftovers go. No engine."""

from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import DockerException

from stellwerk_environment_build.image_engine import LABEL, ImageSettings, clear, push

DIGEST = f"sha256:{'a' * 64}"
SETTINGS = ImageSettings("base", registry="127.0.0.1:1")


def engine_that_pushes(*events: dict[str, Any]) -> Any:
    return SimpleNamespace(api=SimpleNamespace(push=lambda *_, **__: iter(events)))


@pytest.mark.parametrize(
    "event",
    [
        {"progressDetail": {}, "aux": {"Tag": "t", "Digest": DIGEST, "Size": 424}},
        {"status": f"t: digest: {DIGEST} size: 424"},
    ],
)
def test_the_digest_of_a_push(event: dict[str, Any]) -> None:
    """An engine that keeps images in containerd says it in words alone."""
    said: list[str] = []
    pushing = {"status": "Pushing", "id": "x", "progressDetail": {"current": 5_000}}
    found = push(engine_that_pushes(pushing, event), "t", SETTINGS, said.append)
    assert found == f"127.0.0.1:1/stellwerk/environment@{DIGEST}"
    assert said == [f"      pushed to 127.0.0.1:1: 5.0 kB moved, {DIGEST}"]


def test_a_push_without_a_digest() -> None:
    with pytest.raises(DockerException, match="no digest"):
        push(engine_that_pushes({"status": "Pushed", "id": "x"}), "t", SETTINGS, print)


def test_images_below_one_that_goes_go_as_well() -> None:
    """Engines that keep images in containerd list one only when none stands on it."""
    chain = [f"builder-e{number}" for number in (1, 2, 3)]
    asked: list[str] = []

    def listed(filters: dict[str, Any]) -> list[dict[str, Any]]:
        assert filters == {"dangling": True, "label": LABEL}
        other = {"Id": "other", "Labels": {LABEL: "another-e"}}
        return [{"Id": each, "Labels": {LABEL: each}} for each in chain[-1:]] + [other]

    def remove(image: str) -> None:
        asked.append(image)
        chain.remove(image)

    engine = SimpleNamespace(
        api=SimpleNamespace(images=listed),
        images=SimpleNamespace(remove=remove),
        containers=SimpleNamespace(list=lambda **_: []),
    )
    clear(engine, "builder-")  # type: ignore[arg-type]
    assert asked == ["builder-e3", "builder-e2", "builder-e1"]
