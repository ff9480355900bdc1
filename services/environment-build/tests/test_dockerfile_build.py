"""What no build of a Dockerfile begins with, and which containers are its steps. No engine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import ImageNotFound

from stellwerk_environment_build.dockerfile_build import DockerfileBuild, refuse_unwatched
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_engine import ImageSettings, is_step


def image(**config: Any) -> Any:
    """As the engine describes one."""
    return SimpleNamespace(attrs={"Config": config, "RepoDigests": []}, tags=[])


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"OnBuild": ["RUN sleep 600"]}, "ONBUILD"),
        ({"Labels": {"stellwerk.run": "r", "stellwerk.executor": "e"}}, "labels"),
    ],
)
def test_a_base_that_runs_before_the_label_or_bears_others(
    config: dict[str, Any], why: str
) -> None:
    with pytest.raises(BuildFailedError) as caught:
        refuse_unwatched("a:1", image(**config))
    failure = caught.value.failure
    assert (failure.reason, failure.code) == ("your-spec", "env.dockerfile")
    assert "image a:1" in failure.message
    assert why in failure.message


def test_other_bases_are_fine() -> None:
    refuse_unwatched("a", image(OnBuild=None, Labels=None))
    refuse_unwatched("a", image(OnBuild=[], Labels={"stellwerk.build": "e", "x": "y"}))


@pytest.mark.parametrize(
    ("labels", "step"),
    [
        ({"stellwerk.run": "r"}, True),
        ({"stellwerk.run": "r", "stellwerk.executor": ""}, True),
        ({"stellwerk.run": "r", "stellwerk.executor": "executor-1"}, False),
        ({}, True),
    ],
)
def test_only_what_an_executor_started_is_a_run(labels: dict[str, str], step: bool) -> None:
    container = SimpleNamespace(labels={"stellwerk.build": "e", **labels}, image=image())
    assert is_step(container) == step


def test_nothing_is_fetched_for_steps_without_a_network() -> None:
    text = "FROM a\nRUN true\nADD https://me:secret@example.org/x /x\n"
    build = DockerfileBuild("e", text, Path("/nowhere"), ImageSettings("base"))
    with pytest.raises(BuildFailedError) as caught:
        build.run(None, print)  # type: ignore[arg-type] - refused before an engine is asked
    failure = caught.value.failure
    assert (failure.reason, failure.code) == ("your-spec", "env.dockerfile_network")
    assert "line 3" in failure.message
    assert "STELLWERK_BUILD_NETWORK" in failure.message
    assert "secret" not in failure.message


class Engine:
    """Has one image, and says so when it would be asked for the base."""

    def __init__(self, here: str) -> None:
        self.images, self._here = self, here

    def get(self, name: str) -> Any:
        if name == self._here:
            return image()
        if name == "a":
            raise AssertionError("the build went on")
        raise ImageNotFound(name)


@pytest.mark.parametrize(
    ("source", "here"), [("b:1", "b:1"), (f"b@sha256:{'0' * 64}", "c"), ("$B", "c")]
)
def test_no_image_is_pulled_to_copy_from_without_a_network(source: str, here: str) -> None:
    text = f"FROM a\nRUN true\nCOPY --from={source} /x /x\n"
    build = DockerfileBuild("e", text, Path("/nowhere"), ImageSettings("base"))
    with pytest.raises(BuildFailedError) as caught:
        build.run(Engine(here), print)  # type: ignore[arg-type]
    failure = caught.value.failure
    assert (failure.reason, failure.code) == ("your-spec", "env.dockerfile_network")
    assert f"line 3 has COPY --from={source}" in failure.message
    assert f"FROM {source} AS tools" in failure.message


def test_an_image_by_digest_that_is_there_may_be_copied_from() -> None:
    name = f"b@sha256:{'0' * 64}"
    text = f"FROM a\nCOPY --from={name} /x /x\n"
    build = DockerfileBuild("e", text, Path("/nowhere"), ImageSettings("base"))
    with pytest.raises(AssertionError, match="the build went on"):
        build.run(Engine(name), print)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("proxy", "passed"),
    [
        ("http://me:pass@proxy:3128/", "http://proxy:3128/"),
        ("http://me:p@ss/@proxy:3128", "http://proxy:3128"),
        ("me:pass@proxy:3128", "proxy:3128"),
        ("http://proxy:3128", "http://proxy:3128"),
    ],
)
def test_steps_get_proxies_with_a_network_and_never_passwords(proxy: str, passed: str) -> None:
    proxies = {"HTTPS_PROXY": proxy, "NO_PROXY": "a,.b"}
    with_network = ImageSettings("base", network="bridge", proxies=proxies)
    assert with_network.build_arguments == {"HTTPS_PROXY": passed, "NO_PROXY": "a,.b"}
    assert ImageSettings("base", proxies=proxies).build_arguments == {}
