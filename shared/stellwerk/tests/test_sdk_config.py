"""Finding the platform: the order of places, and what is said when there is none."""

import json
from pathlib import Path

import pytest

from stellwerk import Experiment, UserError, Workspace
from stellwerk.config import discover


def put(path: Path, **content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_nothing_found_says_what_to_do() -> None:
    with pytest.raises(UserError, match="stellwerk up") as caught:
        Workspace.from_config()
    assert caught.value.code == "workspace.not_found"


def test_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "home" / "client.json", url="http://home:1", token="h")
    assert discover().url == "http://home:1"
    assert discover().token == "h"
    put(tmp_path / "config.json", url="http://parent:1", token="p")
    assert discover().url == "http://parent:1"
    put(tmp_path / "cwd" / ".stellwerk" / "config.json", url="http://here:1", workspace="w")
    assert (discover().url, discover().workspace) == ("http://here:1", "w")
    monkeypatch.setenv("STELLWERK_URL", "http://env:1/")
    monkeypatch.setenv("STELLWERK_TOKEN", "e")
    assert (discover().url, discover().token) == ("http://env:1", "e")
    given = discover("http://given:1", "g")
    assert (given.url, given.token) == ("http://given:1", "g")


def test_configuration_of_other_programs_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "cwd" / "config.json", subscription_id="x", workspace_name="azure")
    put(tmp_path / "home" / "client.json", url="http://home:1", token="h")
    assert discover().url == "http://home:1"


def test_token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("STELLWERK_URL", "http://env:1")
    monkeypatch.setenv("STELLWERK_TOKEN_FILE", str(tmp_path / "token"))
    assert discover().token == "secret"
    assert "secret" not in repr(discover())


def test_home_token_is_for_its_own_address_only(tmp_path: Path) -> None:
    put(tmp_path / "home" / "client.json", url="http://home:1", token="h")
    assert discover("http://home:1").token == "h"
    assert discover("http://elsewhere:1").token == ""


def test_write_config_keeps_the_token_out(tmp_path: Path) -> None:
    Workspace("http://there:1", "secret", "w").write_config(str(tmp_path / "project"))
    text = (tmp_path / "project" / ".stellwerk" / "config.json").read_text()
    assert json.loads(text) == {"url": "http://there:1", "workspace": "w"}
    assert Workspace.from_config(str(tmp_path / "project")).name == "w"


def test_bad_address() -> None:
    with pytest.raises(UserError, match="http://host:port"):
        Workspace("there:1")


def test_explicit_path_without_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no Stellwerk configuration"):
        Workspace.from_config(str(tmp_path))
    with pytest.raises(UserError, match=r"nope\.json does not exist"):
        Workspace.from_config(str(tmp_path / "nope.json"))


def test_an_experiment_wants_its_workspace_first() -> None:
    with pytest.raises(UserError, match=r"write Experiment\(workspace, name\)"):
        Experiment("digits", Workspace("http://there:1"))  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", ["{", '{"url": 5}', "[]"])
def test_a_broken_file_of_ours_is_named_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Other programs have a config.json too: theirs is no error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STELLWERK_HOME", str(tmp_path / "home"))
    put(tmp_path / "home" / "client.json", url="http://there:1", token="t")
    (tmp_path / "config.json").write_text(broken)
    assert discover().url == "http://there:1"
    put(tmp_path / ".stellwerk" / "config.json")
    (tmp_path / ".stellwerk" / "config.json").write_text(broken)
    with pytest.raises(UserError, match=r"\.stellwerk/config\.json cannot be used: ") as caught:
        discover()
    assert "Mend or remove it" in caught.value.message
