"""Which engines' BuildKit is used for what, and what is never given to it. No engine."""

import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from docker.errors import DockerException, ImageNotFound

from stellwerk.dockerfile_buildkit import Need
from stellwerk_environment_build import buildkit_build, engine_watch
from stellwerk_environment_build.buildkit_build import BuildkitBuild, lacking
from stellwerk_environment_build.dockerfile_build import DockerfileBuild
from stellwerk_environment_build.failures import BuildFailedError, Failure
from stellwerk_environment_build.image_engine import ImageSettings

MOUNT, DOCUMENT = Need(2, "RUN --mount"), Need(3, "a here-document", recent=True)


class Engine:
    """Tells its version, and has every image that is not called missing."""

    def __init__(self, api: str = "1.51", name: str = "Engine", system: str = "linux") -> None:
        self.images = self
        self.version = lambda: {
            "ApiVersion": api, "Version": "v", "Os": system, "Components": [{"Name": name}],
        }  # fmt: skip

    def get(self, name: str) -> Any:
        if "missing" in name:
            raise ImageNotFound(name)
        return SimpleNamespace(attrs={"Config": {}})

    def pull(self, name: str) -> Any:
        raise ImageNotFound(f"no such image {name}")


@pytest.mark.parametrize(
    ("engine", "settings", "needed", "why"),
    [
        (Engine("1.38"), {}, [MOUNT], "the engine here (v) has none"),
        (Engine(name="Podman Engine"), {}, [MOUNT], "has none"),
        (Engine(system="windows"), {}, [MOUNT], "has none"),
        (Engine("1.41"), {}, [MOUNT, DOCUMENT], "is older: Docker 23 or newer does"),
        (Engine(), {"buildkit": False}, [MOUNT], "STELLWERK_BUILD_BUILDKIT"),
        (Engine(), {"network": "mine"}, [MOUNT], "no network 'mine'"),
    ],
)
def test_what_an_engine_lacks(
    engine: Any, settings: dict[str, Any], needed: list[Need], why: str
) -> None:
    assert why in str(lacking(engine, ImageSettings("base", **settings), needed))


@pytest.mark.parametrize(
    ("engine", "network", "needed"),
    [
        (Engine("1.41"), "none", [MOUNT]),
        (Engine("1.41"), "bridge", []),
        (Engine("1.42"), "default", [MOUNT, DOCUMENT]),
        (Engine(), "host", [DOCUMENT]),
    ],
)
def test_what_an_engine_can(engine: Any, network: str, needed: list[Need]) -> None:
    assert lacking(engine, ImageSettings("base", network=network), needed) is None


@pytest.mark.parametrize(
    ("lines", "network", "code", "words"),
    [
        ("FROM a\nRUN --mount=from=b:1,target=/b true", "none", "env.dockerfile_network",
         "line 2 has RUN --mount=from=b:1"),
        (f"FROM a\nCOPY --chmod=1 --from=sha256:{'0' * 64} /b /b", "none", "env.dockerfile",
         "BuildKit finds no image sha256:"),
        (f"FROM sha256:{'0' * 64}\nCOPY --chmod=1 a /b", "none", "env.dockerfile", "after FROM"),
        ("FROM a\nARG B\nCOPY --chmod=1 --from=$B /b /b", "bridge", "env.dockerfile",
         "no image $B in line 3"),
        ("FROM a\nCOPY --chmod=1 --from=missing:1 /b /b", "bridge", "env.image_not_found",
         "no image missing:1"),
    ],
)  # fmt: skip
def test_every_image_is_there_before_buildkit_begins(
    lines: str, network: str, code: str, words: str
) -> None:
    """It has no logins, and must fetch nothing for steps without a network."""
    settings = ImageSettings("base", network=network)
    build = DockerfileBuild("e", f"{lines}\n", Path("/nowhere"), settings)
    with pytest.raises(BuildFailedError) as caught:
        build.run(Engine(), print)  # type: ignore[arg-type]
    failure = caught.value.failure
    assert (failure.reason, failure.code) == ("your-spec", code)
    assert words in failure.message


class Builds:
    """An engine that builds for ever, and forgets who cancels a build that it does not know yet."""

    base_url, api_version, ok = "http://engine", "1.51", True

    def __init__(self) -> None:
        self.api = self
        self.began: list[str] = []
        self.cancelled = False

    def post(self, address: str, **asked: Any) -> Any:
        if address.endswith("/cancel"):
            self.cancelled = asked["params"]["id"] in self.began
        else:
            self.stop()  # somebody does while the request is under way
            self.began.append(asked["params"]["buildid"])
        return self

    def iter_lines(self) -> Iterator[bytes]:
        for _ in range(50):
            if self.cancelled:
                break
            yield b'{"id": "moby.buildkit.trace", "aux": ""}'

    def stop(self) -> None:
        """Put in by the test."""

    def close(self) -> None:
        """It is its own answer, too."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def stoppable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[BuildkitBuild, Builds]:
    engine = Builds()
    monkeypatch.setattr(buildkit_build, "connect", lambda: nullcontext(engine))
    monkeypatch.setattr(buildkit_build, "watched", lambda *_: nullcontext())
    context = tmp_path / "context"
    context.mkdir()
    build = BuildkitBuild("m", "FROM a\n", context, "Dockerfile", ImageSettings("base"))
    monkeypatch.setattr(engine, "stop", build.stop)
    return build, engine


def test_a_build_that_is_ended_before_the_engine_knows_it_ends(
    stoppable: tuple[BuildkitBuild, Builds],
) -> None:
    build, engine = stoppable
    with pytest.raises(DockerException, match="the build was ended"):
        build.run(engine, print)  # type: ignore[arg-type]
    assert engine.began
    assert engine.cancelled


def test_a_build_that_was_ended_is_not_begun(stoppable: tuple[BuildkitBuild, Builds]) -> None:
    build, engine = stoppable
    build.stop()
    with pytest.raises(DockerException, match="the build was ended"):
        build.run(engine, print)  # type: ignore[arg-type]
    assert engine.began == []


def test_a_watch_that_tells_something_else_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would know what the machine has left."""
    container = SimpleNamespace(logs=lambda **_: Words((b"7 8 9\n", b"no number\n")))
    engine = SimpleNamespace(containers=SimpleNamespace(get=lambda _: container))
    monkeypatch.setattr(engine_watch, "connect", lambda: nullcontext(engine))
    ends: list[Failure] = []
    engine_watch._watch("name", 100, ends.append, threading.Event())
    assert [each.code for each in ends] == ["env.engine_unreachable"]


class Words(list[bytes]):
    """What a container says, and the answer of the engine that it comes with."""

    _response = io.BytesIO()
