"""Models from local files: registered, listed, found, fetched, deleted."""

from pathlib import Path

import pytest

from azureml.core import Model, Workspace
from azureml.core.model import Model as SecondPath
from azureml.core.resource_configuration import ResourceConfiguration
from azureml.exceptions import ModelNotFoundException, UserErrorException, WebserviceException


def test_register_find_fetch_delete(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    Path("models/deep").mkdir(parents=True)
    Path("models/deep/weights.h5").write_bytes(b"1")
    Path("models/shape.json").write_text("{}")
    first = Model.register(
        workspace=ws, model_path="./models", model_name="a.model-1", tags={"area": "digits", "n": 1}, properties={"p": "q"},
        description="of a folder", model_framework=Model.Framework.TENSORFLOW, model_framework_version="2.15",
        resource_configuration=ResourceConfiguration(cpu=1, memory_in_gb=0.5),
    )  # fmt: skip
    assert capsys.readouterr().out == "Registering model a.model-1\n"
    second = Model.register(ws, "models/shape.json", "a.model-1", tags={"area": "other"})
    assert (first.id, second.version, first.url) == ("a.model-1:1", 2, "aml://asset/a.model-1:1")
    assert type(first) is type(second) is SecondPath is Model
    assert first.tags == {"area": "digits", "n": "1"}
    assert (first.model_framework, first.model_framework_version) == ("TensorFlow", "2.15")
    assert first.resource_configuration.memory_in_gb == 0.5

    assert Model(ws, "a.model-1").version == 2
    assert Model(ws, "a.model-1", version=1).description == "of a folder"
    assert Model(ws, id="a.model-1:1").id == first.id
    assert Model(ws, name="a.model-1", tags=["n"]).version == 1
    assert [m.version for m in Model.list(ws, name="a.model-1")] == [2, 1]
    assert [m.version for m in Model.list(ws, tags=[["area", "digits"]])] == [1]
    assert [m.version for m in Model.list(ws, name="a.model-1", properties=[["p", "q"]])] == [1]
    assert [m.version for m in Model.list(ws, name="a.model-1", latest=True)] == [2]
    assert [m.version for m in Model.list(ws, model_framework="TensorFlow")] == [1]
    assert type(ws.models["a.model-1"]) is Model

    assert first.download(target_dir="there", exist_ok=True) == "there/models"
    assert Path("there/models/deep/weights.h5").read_bytes() == b"1"
    assert (
        Model.get_model_path("a.model-1", _workspace=ws) == "azureml-models/a.model-1/2/shape.json"
    )
    assert Model.get_model_path("a.model-1") == "azureml-models/a.model-1/2/shape.json"
    assert Model.get_model_path("models") == "models"

    first.add_tags({"stage": "prod"})
    first.update_tags_properties(remove_tags=["n"], add_properties={"r": "s"})
    again = Model(ws, "a.model-1", version=1)
    assert (again.tags, again.properties["r"]) == ({"area": "digits", "stage": "prod"}, "s")
    with pytest.raises(UserErrorException, match="never change"):
        again.add_properties({"p": "other"})
    second.delete()
    assert Model(ws, "a.model-1").version == 1
    first.delete()


def test_what_is_not_there(ws: Workspace) -> None:
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        Model(ws, "nothing")
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        Model(ws, "nothing", tags=["a"])
    with pytest.raises(ModelNotFoundException, match="ModelNotFound"):
        Model.get_model_path("nothing", _workspace=ws)
    with pytest.raises(FileNotFoundError, match="outputs/none"):
        Model.register(ws, model_path="outputs/none.pkl", model_name="n")
    Path("file").write_text("x")
    with pytest.raises(UserErrorException, match="name: got '-bad'"):
        Model.register(ws, model_path="file", model_name="-bad")
    with pytest.raises(WebserviceException, match="does not deploy"):
        Model.deploy(ws, "service", [])
