"""Datasets, clusters, environments and models against the scripted platform."""

from pathlib import Path

import pytest
from scripted_platform import Platform

from stellwerk import (
    AmlCompute,
    ComputeTarget,
    ComputeTargetException,
    ConflictError,
    Dataset,
    Environment,
    Model,
    NotFoundError,
    Run,
    StellwerkError,
    Workspace,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.gz").write_bytes(b"a")
    (folder / "sub" / "b.gz").write_bytes(b"b")
    (folder / "notes.txt").write_bytes(b"n")
    return folder


def test_dataset_from_a_directory(
    platform: Platform, workspace: Workspace, data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    store = workspace.get_default_datastore()
    made = Dataset.File.upload_directory(str(data), (store, "mnist"), "*.gz", show_progress=True)
    out = capsys.readouterr().out
    assert out == "Uploading an estimated of 2 files\nUploaded 2 files\n"
    assert sorted(platform.datastore) == ["mnist/a.gz", "mnist/sub/b.gz"]
    registered = made.register(workspace, "mnist dataset", "digits", create_new_version=True)
    assert (registered.name, registered.version, registered.created) == ("mnist dataset", 1, True)
    again = made.register(workspace, "mnist dataset", create_new_version=True)
    assert (again.version, again.created) == (1, False)
    found = Dataset.get_by_name(workspace, "mnist dataset")
    assert sorted(found.to_path()) == ["/a.gz", "/sub/b.gz"]
    assert Dataset.get_by_id(workspace, found.id).id == found.id
    assert list(workspace.datasets) == ["mnist dataset"]
    paths = found.download(str(tmp_path / "got"))
    assert sorted(Path(each).read_bytes() for each in paths) == [b"a", b"b"]
    with pytest.raises(ConflictError):
        found.download(str(tmp_path / "got"))
    assert len(found.download(str(tmp_path / "got"), overwrite=True)) == 2


def test_dataset_names_and_versions(platform: Platform, workspace: Workspace, data: Path) -> None:
    first = Dataset.File.from_local(workspace, [str(data / "a.gz")])
    second = Dataset.File.from_local(workspace, [str(data / "notes.txt")])
    first.register(workspace, "d")
    with pytest.raises(ConflictError):
        second.register(workspace, "d")
    assert second.register(workspace, "d", create_new_version=True).version == 2
    assert Dataset.get_by_name(workspace, "d", 1).to_path() == ["/a.gz"]
    with pytest.raises(NotFoundError, match="Cannot find dataset registered with name 'x'"):
        Dataset.get_by_name(workspace, "x")


def test_upload_files(platform: Platform, workspace: Workspace, data: Path) -> None:
    store = workspace.get_default_datastore()
    files = [str(data / "a.gz"), str(data / "sub" / "b.gz")]
    store.upload_files(files, target_path="t", show_progress=False)
    assert sorted(platform.datastore) == ["t/a.gz", "t/sub/b.gz"]
    (data / "a.gz").write_bytes(b"other")
    with pytest.raises(ConflictError):
        store.upload_files(files[:1], target_path="t", show_progress=False)
    store.upload_files(files[:1], target_path="t", overwrite=True, show_progress=False)


def test_url_dataset_is_saved_when_it_is_used(platform: Platform, workspace: Workspace) -> None:
    made = Dataset.File.from_files("https://x.example/data/a.gz")
    assert platform.datasets == {}
    assert made.register(workspace, "web").to_path() == ["/x.example/data/a.gz"]


def test_cluster(
    platform: Platform, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ComputeTargetException, match="ComputeTargetNotFound"):
        ComputeTarget(workspace=workspace, name="cpu-cluster")
    settings = AmlCompute.provisioning_configuration(
        vm_size="STANDARD_D2_V2", max_nodes="4", idle_seconds_before_scaledown="300"
    )
    made = ComputeTarget.create(workspace, "cpu-cluster", settings)
    made.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
    assert capsys.readouterr().out == (
        "Creating...\nSucceeded\nAmlCompute wait for completion finished\n\n"
        "Minimum number of nodes requested have been provisioned\n"
    )
    found = ComputeTarget(workspace, "cpu-cluster")
    assert type(found) is AmlCompute
    status = found.get_status().serialize()
    assert status["scaleSettings"] == {
        "minNodeCount": 0, "maxNodeCount": 4, "nodeIdleTimeBeforeScaleDown": "PT300S",
    }  # fmt: skip
    assert status["currentNodeCount"] == 0
    found.update(max_nodes=2)
    assert platform.compute["cpu-cluster"].max_nodes == 2
    assert (found.list_nodes(), list(workspace.compute_targets)) == ([], ["cpu-cluster"])
    with pytest.raises(ComputeTargetException, match="exists already"):
        ComputeTarget.create(workspace, "cpu-cluster", settings)
    found.delete()
    assert workspace.compute_targets == {}


def test_cluster_settings_are_checked(workspace: Workspace) -> None:
    with pytest.raises(ComputeTargetException, match="max_nodes is missing"):
        AmlCompute.provisioning_configuration(vm_size="x")
    with pytest.raises(ComputeTargetException, match="got 'many'; it must be a whole number"):
        AmlCompute.provisioning_configuration(max_nodes="many")
    with pytest.raises(ComputeTargetException, match=r"name: got 'No Good'\."):
        ComputeTarget.create(
            workspace, "No Good", AmlCompute.provisioning_configuration(max_nodes=1)
        )


def test_cluster_wait_has_an_end(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    made = ComputeTarget.create(workspace, "c", AmlCompute.provisioning_configuration(max_nodes=1))
    made.wait_for_completion(show_output=True, min_node_count=1, timeout_in_minutes=0)
    assert "Wait timeout has been reached: 0 of 1 nodes are there" in capsys.readouterr().out


def test_environment(
    platform: Platform, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = Environment("tf")
    environment.python.conda_dependencies.add_pip_package("keras")
    first = environment.register(workspace)
    assert (first.version, first.created) == ("1", True)
    assert (environment.register(workspace).version, environment.register(workspace).created) == (
        "1",
        False,
    )
    found = Environment.get(workspace, "tf")
    assert found.reference() is not None
    assert list(Environment.list(workspace)) == ["tf"]
    platform.build_log = b"resolved 3 packages\n"
    found.build(workspace).wait_for_completion(show_output=True)
    assert capsys.readouterr().out == "resolved 3 packages\n"
    platform.build_state = "failed"
    with pytest.raises(StellwerkError, match="no such package"):
        found.build(workspace).wait_for_completion(show_output=False)
    with pytest.raises(NotFoundError):
        Environment.get(workspace, "nope")


def test_model_of_a_run(platform: Platform, workspace: Workspace, tmp_path: Path) -> None:
    run = platform.add_run()
    platform.runs[run].files = {
        "outputs/model/m.keras": platform.blob(b"w"),
        "outputs/model/labels.json": platform.blob(b"[]"),
    }
    made = Run.get(workspace, run).register_model("digits", "./outputs/model/", tags={"a": 1})
    assert (made.id, made.run_id, made.tags) == ("digits:1", run, {"a": "1"})
    folder = Model(workspace, "digits").download(str(tmp_path / "got"))
    assert folder == str(tmp_path / "got" / "model")
    assert sorted(each.name for each in Path(folder).iterdir()) == ["labels.json", "m.keras"]
    with pytest.raises(ConflictError):
        made.download(str(tmp_path / "got"))
    assert Model.get_model_path("digits", _workspace=workspace) == "azureml-models/digits/1/model"
    assert Model.get_model_path("digits") == "azureml-models/digits/1/model"
    with pytest.raises(NotFoundError):
        Run.get(workspace, run).register_model("digits", "outputs/nope")


def test_local_model(platform: Platform, workspace: Workspace, data: Path) -> None:
    first = Model.register(workspace, str(data), "local", tags={"a": None}, description="d")
    second = Model.register(workspace, str(data / "a.gz"), "local")
    assert [each.path for each in first.files()] == ["data/a.gz", "data/notes.txt", "data/sub/b.gz"]
    assert [each.path for each in second.files()] == ["a.gz"]
    assert [model.id for model in Model.list(workspace)] == ["local:2", "local:1"]
    assert workspace.models["local"].version == 2
    assert Model(workspace, id="local:1").description == "d"
    first.update(tags={"b": 2}, description="new")
    assert (first.tags, first.description) == ({"b": "2"}, "new")
    second.delete()
    assert Model(workspace, "local").version == 1
