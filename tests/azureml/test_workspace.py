"""Workspace: every place of config.json, the names, what is made and found through it."""

import json
from pathlib import Path

import pytest

from azureml.core import Workspace
from azureml.core.authentication import ServicePrincipalAuthentication
from azureml.exceptions import ServiceException, UserErrorException, WorkspaceException

V1 = {"subscription_id": "a-sub", "resource_group": "a-group", "workspace_name": "a-name"}


@pytest.mark.parametrize(
    "place", ["config.json", ".azureml/config.json", "aml_config/config.json", ".azureml/.azureml/config.json"]
)  # fmt: skip
@pytest.mark.parametrize("from_below", [False, True])
def test_config_json_lies_anywhere(
    place: str, from_below: bool, ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(place).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(V1))
    if from_below:
        Path("a/b").mkdir(parents=True)
        monkeypatch.chdir("a/b")
    found = Workspace.from_config()
    names = (found.subscription_id, found.resource_group, found.name)
    assert names == ("a-sub", "a-group", "a-name")
    assert Workspace.from_config(path=str(file)).name == "a-name"
    assert found.url == ws.url
    assert found.get_details()["name"] == "a-name"


def test_without_a_file_it_is_the_platform_of_this_machine(ws: Workspace) -> None:
    assert (ws.name, ws.location, ws.resource_group) == ("default", "local", "stellwerk")
    assert ws.get_details()["stellwerk"]["services"]["gateway"] == "ready"
    assert repr(ws).startswith("Workspace.create(name='default', subscription_id='0000")
    assert "default" in ws._repr_html_()


@pytest.mark.parametrize("path", [".", ".azureml"])
def test_write_config_is_found_again(path: str, ws: Workspace) -> None:
    Workspace("a-sub", "a-group", "a-name").write_config(path)
    assert json.loads(Path(path, ".azureml/config.json").read_text()) == V1
    assert Workspace.from_config().name == "a-name"


def test_a_file_of_another_name(ws: Workspace) -> None:
    Workspace("a-sub", "a-group", "a-name").write_config("./there", file_name="ws_config.json")
    assert Path("there/.azureml/ws_config.json").is_file()
    assert Workspace.from_config(path="./there/ws_config.json").name == "a-name"
    assert Workspace.from_config(path="there", _file_name="ws_config.json").name == "a-name"


def test_the_constructor_get_and_create_mean_the_same(ws: Workspace) -> None:
    auth = ServicePrincipalAuthentication("tenant", "principal", "password")
    for made in (
        Workspace(subscription_id="s", resource_group="g", workspace_name="w-1", auth=auth),
        Workspace.get(name="w-1", subscription_id="s", resource_group="g"),
        Workspace.create(
            name="w-1",
            subscription_id="s",
            resource_group="g",
            location="eastus2",
            create_resource_group=True,
            sku="basic",
            exist_ok=True,
        ),
    ):
        assert (made.subscription_id, made.resource_group, made.name) == ("s", "g", "w-1")
        assert made.compute_targets.keys() == ws.compute_targets.keys()


def test_placeholders_and_silence_are_refused(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WorkspaceException, match="workspace_name: got '<my-workspace-name>'"):
        Workspace("<my-subscription-id>", "<my-resource-group>", "<my-workspace-name>")
    monkeypatch.setenv("STELLWERK_URL", "http://127.0.0.1:1")
    with pytest.raises(ServiceException, match="Cannot reach the platform"):
        Workspace("s", "g", "w-1")


def test_a_missing_or_broken_file_is_named(ws: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UserErrorException, match="nowhere"):
        Workspace.from_config(path="nowhere")
    file = tmp_path / ".azureml" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"workspace_name": "w-1", "resource_group": "g"}))
    with pytest.raises(UserErrorException, match="has no subscription_id"):
        Workspace.from_config()
