"""What a container is asked to be that stands in for bubblewrap's walls. No engine is needed."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException, ImageNotFound

from stellwerk_environment_build import image_engine
from stellwerk_environment_build.build_cell import CellSettings, find_cell
from stellwerk_environment_build.engine_cell import (
    PROCESSES,
    Asked,
    CellError,
    config_of,
    walls_by_engine,
)
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_engine import ImageSettings

ABOUT = {"image": "base:1", "memory": 1000}
NEWEST = (1, 44)


def mounts(config: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    found = config["HostConfig"]["Mounts"]
    return {each["Target"]: (each["Source"], each["ReadOnly"]) for each in found}


def own(*mounted: tuple[Path, str]) -> dict[str, Any]:
    """What an engine says of a builder that is one of its containers."""
    found = [{"Destination": str(path), "Source": source} for path, source in mounted]
    return {"Id": "f00", "Image": "sha256:own", "Mounts": found}


def test_words_of_bubblewrap_are_mounts(tmp_path: Path) -> None:
    read, write = (tmp_path / name for name in ("read", "write"))
    read.mkdir(), write.mkdir()
    words = [
        *("--ro-bind-try", str(read), "/read", "--ro-bind-try", str(tmp_path / "none"), "/none"),
        *("--bind", str(write), str(write), "--symlink", "usr/bin", "/bin"),
        *("--chdir", "/", "--", "/bin/true", "--bind"),
    ]
    asked = Asked.read(words)
    assert asked.argv == ["/bin/true", "--bind"]
    config = config_of(asked, ABOUT, None, NEWEST)
    assert mounts(config) == {
        "/read": (str(read), True),
        str(write): (str(write), False),
        "/bin": ("/usr/bin", True),
    }
    host = config["HostConfig"]
    assert config["Image"] == "base:1"
    assert (host["NetworkMode"], host["CapDrop"], host["ReadonlyRootfs"]) == ("none", ["ALL"], True)
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (1000, 1000, PROCESSES)
    assert host["SecurityOpt"] == ["no-new-privileges"]


def test_a_builder_in_a_container_shows_what_lies_on_its_own_mounts(tmp_path: Path) -> None:
    volume, secret = tmp_path / "environments", tmp_path / "secret"
    (volume / "work").mkdir(parents=True)
    secret.write_text("a login")
    words = ["--share-net", "--bind", str(volume / "work"), "/work"]
    words += ["--ro-bind", str(secret), str(secret), "--ro-bind-try", "/usr", "/usr"]
    here = own((volume, "/volumes/e/_data"), (secret, "/etc/logins.json"))
    config = config_of(Asked.read(words), ABOUT, here, NEWEST)
    assert mounts(config) == {
        "/work": ("/volumes/e/_data/work", False),
        str(secret): ("/etc/logins.json", True),  # and /usr is in the image
    }
    assert config["Image"] == "sha256:own"
    assert config["HostConfig"]["NetworkMode"] == "container:f00"


def test_a_link_leads_no_engine_astray(tmp_path: Path) -> None:
    """A folder that a link stands for is what it leads to here, not what the machine has there."""
    volume, elsewhere = tmp_path / "environments", tmp_path / "elsewhere"
    volume.mkdir(), elsewhere.mkdir()
    (volume / "work").symlink_to(elsewhere)
    asked = Asked.read(["--bind", str(volume / "work"), "/work"])
    assert mounts(config_of(asked, ABOUT, None, NEWEST)) == {"/work": (str(elsewhere), False)}
    with pytest.raises(CellError, match="put it on a volume"):
        config_of(asked, ABOUT, own((volume, "/volumes/e/_data")), NEWEST)


@pytest.mark.parametrize(("api", "hidden"), [((1, 43), True), ((1, 44), False)])
def test_what_an_older_engine_would_leave_writable_is_not_shown(
    tmp_path: Path, api: tuple[int, int], hidden: bool
) -> None:
    asked = Asked.read(["--ro-bind", str(tmp_path), "/a", "--bind", str(tmp_path), "/b"])
    found = config_of(asked, ABOUT, None, api)["HostConfig"]["Mounts"]
    assert [each["BindOptions"]["NonRecursive"] for each in found] == [hidden, False]


@pytest.mark.parametrize("words", [["--dev-bind", "/dev", "/dev"], ["--ro-bind", "/none", "/a"]])
def test_what_cannot_be_done_is_said(words: list[str]) -> None:
    with pytest.raises(CellError, match=r"--dev-bind|/none"):
        config_of(Asked.read(words), ABOUT, None, NEWEST)


class Engine:
    """Has no image until it is pulled; ``away``: it does not answer."""

    def __init__(self, *, away: bool = False, gives: bool = True) -> None:
        self.images, self.api, self.away, self.gives = self, self, away, gives
        self.pulled: list[str] = []

    def get(self, name: str) -> Any:
        if self.away:
            raise DockerException("connection refused")
        if name not in self.pulled:
            raise ImageNotFound(name)

    def containers(self, **_: Any) -> list[Any]:
        return []

    def pull(self, name: str) -> None:
        if not self.gives:
            raise ImageNotFound(name)
        self.pulled.append(name)


def test_the_base_is_pulled_before_a_cell_is_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first conda packages of a new machine were installed without walls."""
    engine = Engine()
    monkeypatch.setattr(image_engine, "connect", lambda: nullcontext(engine))
    assert "base:1" in " ".join(walls_by_engine(ImageSettings("base:1")))
    walls_by_engine(ImageSettings("base:1"))
    assert engine.pulled == ["base:1"]


@pytest.mark.parametrize(
    ("engine", "code"),
    [(Engine(away=True), "env.engine_unreachable"), (Engine(gives=False), "env.base_image")],
)
def test_without_an_engine_for_a_while_nothing_is_done_without_walls(
    engine: Engine, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_engine, "connect", lambda: nullcontext(engine))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildFailedError) as caught:
        find_cell(CellSettings("auto"), tmp_path, ImageSettings("base:1"))
    assert caught.value.failure.code == code
