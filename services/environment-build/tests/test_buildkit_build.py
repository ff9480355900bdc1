"""Which engines' BuildKit is used for what, and what is never given to it. No engine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import ImageNotFound

from stellwerk.dockerfile_buildkit import Need
from stellwerk_environment_build.buildkit_build import lacking
from stellwerk_environment_build.dockerfile_build import DockerfileBuild
from stellwerk_environment_build.failures import BuildFailedError
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
