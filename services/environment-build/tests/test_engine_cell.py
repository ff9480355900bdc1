"""What a container is asked to be that stands in for bubblewrap's walls. No engine is needed."""

from pathlib import Path
from typing import Any

import pytest

from stellwerk_environment_build.engine_cell import PROCESSES, Asked, CellError, config_of

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
