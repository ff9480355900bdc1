"""Datasets, datastores, outputs and references as v1 code uses them, through every service."""

import gzip
import hashlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from azureml.core import Dataset, Datastore, Environment, Experiment, ScriptRunConfig, Workspace
from azureml.core.run import Run
from azureml.data import OutputFileDatasetConfig
from azureml.data.data_reference import DataReference
from azureml.data.datapath import DataPath, DataPathComputeBinding
from azureml.data.dataset_consumption_config import DatasetConsumptionConfig
from azureml.data.dataset_type_definitions import PromoteHeadersBehavior
from azureml.data.file_dataset import FileDataset
from azureml.data.tabular_dataset import TabularDataset
from azureml.exceptions import UserErrorException
from azureml.opendatasets import MNIST, Diabetes, NoaaIsdWeather

TUTORIAL = [
    "http://yann.lecun.com/exdb/mnist/train-images-idx3-ubyte.gz",
    "http://yann.lecun.com/exdb/mnist/train-labels-idx1-ubyte.gz",
    "http://yann.lecun.com/exdb/mnist/t10k-images-idx3-ubyte.gz",
    "http://yann.lecun.com/exdb/mnist/t10k-labels-idx1-ubyte.gz",
]
MNIST_FOLDER = Path(__file__).parents[2] / "training/examples/keras-mnist/data"


@pytest.fixture
def here() -> Environment:
    environment = Environment("here")
    environment.python.user_managed_dependencies = True
    environment.python.interpreter_path = sys.executable
    return environment


def run_script(ws: Workspace, here: Environment, script: str, *arguments: object) -> Run:
    folder = Path("source")
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(script)
    config = ScriptRunConfig(
        source_directory=str(folder), script="train.py", arguments=list(arguments), environment=here
    )
    return Experiment(ws, "data").submit(config)


def csv(folder: str, **files: str) -> str:
    for name, text in files.items():
        path = Path(folder, name.replace("__", "/") + ".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


DIGESTS = """
import glob, hashlib, os, sys
folder = sys.argv[1]
for path in sorted(glob.glob(os.path.join(folder, "**/*.gz"), recursive=True)):
    print(os.path.basename(path), hashlib.sha256(open(path, "rb").read()).hexdigest())
"""


def test_the_tutorials_addresses(ws: Workspace, here: Environment) -> None:
    dataset = Dataset.File.from_files(path=TUTORIAL)
    dataset = dataset.register(
        workspace=ws, name="mnist-dataset", description="training and test dataset",
        create_new_version=True,
    )  # fmt: skip
    found = Dataset.get_by_name(ws, "mnist-dataset")
    assert sorted(found.to_path()) == sorted("/" + url.removeprefix("http://") for url in TUTORIAL)
    run = run_script(ws, here, DIGESTS, found.as_mount())
    details = run.wait_for_completion()
    log = Path(run.download_file("user_logs/std_log.txt", "log.txt") or "log.txt").read_text()
    committed = {
        name: hashlib.sha256((MNIST_FOLDER / name).read_bytes()).hexdigest()
        for name in (url.rpartition("/")[2] for url in TUTORIAL)
    }
    assert dict(line.split() for line in log.splitlines()) == committed
    (warning,) = [each["message"] for each in details["warnings"] if "yann" in each["message"]]
    assert warning.endswith("(4 files) was read from the platform's mirror 'mnist'")
    assert details["runDefinition"]["arguments"] == [
        f"DatasetConsumptionConfig:input_{found.id[:8]}"
    ]


def test_open_datasets(ws: Workspace) -> None:
    files = MNIST.get_file_dataset()
    paths = files.download("data", overwrite=True)
    assert {Path(path).name for path in paths} == {url.rpartition("/")[2] for url in TUTORIAL}
    assert all(gzip.decompress(Path(path).read_bytes()) for path in paths)
    table = Diabetes.get_tabular_dataset()
    frame = table.to_pandas_dataframe()
    assert frame.shape == (442, 11)
    assert list(frame.columns) == [
        "AGE",
        "SEX",
        "BMI",
        "BP",
        "S1",
        "S2",
        "S3",
        "S4",
        "S5",
        "S6",
        "Y",
    ]
    assert frame.iloc[0].tolist() == [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87, 151]
    registered = table.register(ws, "diabetes dataset", create_new_version=True)
    assert type(Dataset.get_by_name(ws, "diabetes dataset")) is type(registered) is TabularDataset
    with pytest.raises(UserErrorException, match="no copy of this open dataset"):
        NoaaIsdWeather(None, None)


def test_datastore(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    datastore = ws.get_default_datastore()
    assert (datastore.name, Datastore.get_default(ws).name) == ("workspaceblobstore",) * 2
    assert Datastore.get(ws, "workspaceblobstore").name == "workspaceblobstore"
    csv("d", a="1\n", sub__b="2\n")
    reference = datastore.upload_files(
        ["d/a.csv", "d/sub/b.csv"], target_path="up/x", overwrite=True
    )
    assert capsys.readouterr().out == "Uploading an estimated of 2 files\nUploaded 2 files\n"
    assert isinstance(reference, DataReference)
    assert Dataset.File.from_files(reference).to_path() == ["/a.csv", "/sub/b.csv"]
    datastore.upload(src_dir="d", target_path="up/y", overwrite=True, show_progress=False)
    assert datastore.download("got", prefix="up/y", show_progress=False) == 2
    assert Path("got/up/y/sub/b.csv").read_text() == "2\n"
    assert datastore.download("got", prefix="up/y", show_progress=False) == 0
    with pytest.raises(UserErrorException, match="datastore 'nope'"):
        Datastore.get(ws, "nope")
    with pytest.raises(UserErrorException, match="registers no outside one"):
        Datastore.register_azure_blob_container(workspace=ws, datastore_name="x")
    with pytest.raises(UserErrorException, match="not a folder"):
        datastore.upload("nowhere")
    with pytest.raises(UserErrorException, match="No such file"):
        datastore.upload_files(["nowhere.csv"])


def test_paths_of_a_file_dataset(ws: Workspace) -> None:
    store = ws.get_default_datastore()
    csv("d", features="1\n", labels="2\n", deep__more="3\n")
    store.upload("d", "shapes/diabetes", overwrite=True, show_progress=False)
    for path, expected in [
        ((store, "shapes/diabetes/"), ["/deep/more.csv", "/features.csv", "/labels.csv"]),
        (store.path("shapes/diabetes/features.csv"), ["/features.csv"]),
        (DataPath(store, "shapes/diabetes/*.csv"), ["/features.csv", "/labels.csv"]),
        ((store, "shapes/**/more.csv"), ["/diabetes/deep/more.csv"]),
        ([(store, "shapes/diabetes/labels.csv"), (store, "shapes/diabetes/deep")], ["/deep/more.csv", "/labels.csv"]),
    ]:  # fmt: skip
        assert Dataset.File.from_files(path).to_path() == expected, path
    whole = Dataset.File.from_files((store, "shapes/diabetes"))
    assert whole.take(1).to_path() == ["/deep/more.csv"]
    assert whole.skip(1).to_path() == ["/features.csv", "/labels.csv"]
    halves = whole.random_split(0.5, seed=3)
    assert sorted(halves[0].to_path() + halves[1].to_path()) == whole.to_path()
    with whole.mount() as context:
        seen = Path(context.mount_point, "deep/more.csv")
        assert (seen.read_text(), seen.stat().st_mode & 0o222) == ("3\n", 0)
    assert not Path(context.mount_point).exists()
    whole.download("there")
    with pytest.raises(UserErrorException, match="exists already"):
        whole.download("there")
    assert len(whole.download("there", overwrite=True)) == 3
    uploaded = Dataset.File.upload_directory("d", (store, "shapes/again"), overwrite=True)
    assert uploaded.to_path() == whole.to_path()


def test_names_and_versions(ws: Workspace) -> None:
    store = ws.get_default_datastore()
    csv("d", a="1\n", b="2\n")
    store.upload("d", "names", overwrite=True, show_progress=False)
    first = Dataset.File.from_files((store, "names/a.csv"))
    second = Dataset.File.from_files((store, "names/b.csv"))
    assert first.register(ws, "some files", "what it is", {"k": "v"}).version == 1
    with pytest.raises(UserErrorException, match="create_new_version"):
        second.register(ws, "some files")
    assert second.register(ws, "some files", create_new_version=True).version == 2
    found = Dataset.get_by_name(ws, name="some files", version=1)
    assert (found.description, found.tags, found.id) == ("what it is", {"k": "v"}, first.id)
    assert type(ws.datasets["some files"]) is FileDataset
    assert Dataset.get_all(ws)["some files"].version == 2
    assert Dataset.get_by_id(ws, first.id).to_path() == ["/a.csv"]
    for name, version in (("nothing", "latest"), ("some files", 9)):
        with pytest.raises(
            UserErrorException, match=f"Cannot find dataset registered with name '{name}'"
        ):
            Dataset.get_by_name(ws, name, version)
    assert found.add_tags({"k": "w", "n": None}).tags == {"k": "w", "n": None}
    assert found.remove_tags(["n"]).update(description="other").description == "other"
    again = Dataset.get_by_name(ws, "some files", 1)
    assert (again.tags, again.description) == ({"k": "w"}, "other")
    with pytest.raises(UserErrorException, match="not registered"):
        first.add_tags({"a": "b"})
    with pytest.raises(UserErrorException, match="the limits are"):
        found.add_tags({f"t{number}": "" for number in range(300)})
    found.unregister_all_versions()
    assert "some files" not in ws.datasets


@pytest.mark.parametrize(
    "path",
    [
        [], "", "/etc/passwd", "file:///etc/passwd", "../x", ["http://a.example/x", "b"], 7, [None],
        "http://169.254.169.254/latest", "http://user:pw@a.example/x", "http://a.example/" + "x" * 5000,
    ],
)  # fmt: skip
def test_paths_that_are_none(ws: Workspace, path: object) -> None:
    with pytest.raises(UserErrorException):
        Dataset.File.from_files(path).register(ws, "never")
    with pytest.raises(UserErrorException):
        Dataset.Tabular.from_delimited_files(path).register(ws, "never")


def test_datastore_paths_that_are_none(ws: Workspace) -> None:
    store = ws.get_default_datastore()
    for path in ("no/such", "../up", "a/../../b", "\0", "x" * 2000):
        with pytest.raises(UserErrorException):
            Dataset.File.from_files((store, path)).register(ws, "never")
    Path("d").mkdir()
    Path("d/x").write_text("x")
    for target in ("../up", "a/../../b"):
        with pytest.raises(UserErrorException):
            store.upload("d", target, show_progress=False)


def test_inputs_are_named(ws: Workspace, here: Environment) -> None:
    store = ws.get_default_datastore()
    csv("d", a="1\n")
    data = Dataset.File.from_files(store.upload("d", "in", overwrite=True, show_progress=False))
    for name in ("2x", "a-b", "a b", "", "\u00e4", None):
        with pytest.raises(UserErrorException, match="cannot be an input's name"):
            data.as_named_input(name)
    with pytest.raises(UserErrorException, match="a dataset cannot be an argument itself"):
        run_script(ws, here, "", data)
    with pytest.raises(UserErrorException, match="no Spark"):
        data.as_hdfs()
    with pytest.raises(UserErrorException, match="two different inputs"):
        run_script(
            ws,
            here,
            "",
            data.as_named_input("x").as_mount(),
            data.as_named_input("x").as_download(),
        )
    assert isinstance(data.as_named_input("x"), DatasetConsumptionConfig)
    script = "import os, sys; print(sys.argv[1:], os.environ['x'], os.environ['AZURE_ML_INPUT_x'])"
    run = run_script(
        ws, here, script, data.as_named_input("x").as_mount("/tmp/x"), data.as_named_input("y")
    )
    run.wait_for_completion()
    run.download_file("user_logs/std_log.txt", "log.txt")
    path, dataset_id, *same = (
        Path("log.txt").read_text().translate(str.maketrans("", "", "[],'")).split()
    )
    assert Path(path).parts[-3:] == ("work", "tmp", "x")
    assert (dataset_id, same) == (data.id, [path, path])


PRODUCE = """
import os, sys
from azureml.core import Run
out, told = sys.argv[1], Run.get_context().output_datasets["cleaned"]
assert out == told == os.environ["AZURE_ML_OUTPUT_cleaned"]
os.makedirs(os.path.join(out, "part"))
open(os.path.join(out, "part", "1.csv"), "w").write("a,b\\n1,x\\n2,y\\n")
"""


def test_outputs(ws: Workspace, here: Environment) -> None:
    store = ws.get_default_datastore()
    output = OutputFileDatasetConfig(name="cleaned")
    kept = output.register_on_complete("cleaned data", tags={"by": "test"})
    with pytest.raises(UserErrorException, match="submit the run that makes it first"):
        run_script(ws, here, "", kept.as_input())
    run = run_script(ws, here, PRODUCE, kept)
    details = run.wait_for_completion()
    assert details["runDefinition"]["arguments"] == ["DatasetOutputConfig:cleaned"]
    (made,) = details["outputDatasets"]
    assert made["outputDetails"]["path"] == f"dataset/{run.id}/cleaned"
    found = Dataset.get_by_name(ws, "cleaned data")
    assert (found.id, found.tags, found.to_path()) == (
        made["dataset"]["id"],
        {"by": "test"},
        ["/part/1.csv"],
    )
    assert Dataset.File.from_files((store, f"dataset/{run.id}/cleaned")).id == found.id
    assert run.output_dataset("cleaned").version == found.version

    again = run_script(
        ws, here, "import os, sys; print(os.listdir(sys.argv[1]))", kept.as_input("given")
    )
    assert again.wait_for_completion()["status"] == "Completed"

    table = (
        OutputFileDatasetConfig("cleaned", (store, "tables/{run-id}"))
        .as_upload(overwrite=False).read_delimited_files().drop_columns("b").register_on_complete("a table")
    )  # fmt: skip
    run = run_script(ws, here, PRODUCE, table)
    run.wait_for_completion(show_output=False)
    frame = Dataset.get_by_name(ws, "a table").to_pandas_dataframe()
    assert frame.to_dict("list") == {"a": [1, 2]}
    assert run.get_details()["outputDatasets"][0]["outputDetails"]["path"] == f"tables/{run.id}"

    failed = run_script(
        ws, here, PRODUCE + "\nsys.exit(1)", output.register_on_complete("never made")
    )
    failed.wait_for_completion(raise_on_error=False)
    assert "never made" not in ws.datasets
    assert failed.get_details()["outputDatasets"] == []
    with pytest.raises(UserErrorException, match="the run is Failed"):
        failed.output_dataset("cleaned")


@pytest.mark.parametrize(
    "wrong", [{"name": "a-b"}, {"destination": "x"}, {"destination": (1, "x")}]
)
def test_outputs_that_are_none(ws: Workspace, wrong: dict[str, object]) -> None:
    with pytest.raises(UserErrorException):
        OutputFileDatasetConfig(**wrong)


@pytest.mark.parametrize("field", ["destination", "source"])
def test_outputs_with_hostile_paths(ws: Workspace, here: Environment, field: str) -> None:
    store = ws.get_default_datastore()
    for path in ("../../up", "a/../../b"):
        wrong = {field: (store, path) if field == "destination" else path}
        with pytest.raises(UserErrorException, match=r"spec\.outputs\.x"):
            run_script(ws, here, "", OutputFileDatasetConfig("x", **wrong))


def test_data_references(ws: Workspace, here: Environment) -> None:
    store = ws.get_default_datastore()
    csv("d", a="1\n")
    store.upload("d", "refs/in", overwrite=True, show_progress=False)
    reference = store.path("refs/in", data_reference_name="raw").as_mount()
    assert str(reference) == "$AZUREML_DATAREFERENCE_raw"
    goal = DataReference(store, "goal", "refs/out", mode="upload", overwrite=True)
    script = "import os, sys; open(sys.argv[2] + '/x', 'w').write(open(sys.argv[1]).read() + sys.argv[3]); assert sys.argv[4] == os.environ['AZUREML_DATAREFERENCE_raw']"
    run = run_script(ws, here, script, str(reference) + "/a.csv", goal, "$HOME", reference)
    run.wait_for_completion()
    store.download("back", "refs/out", show_progress=False)
    assert Path("back/refs/out/x").read_text() == "1\n$HOME"
    config = reference.to_config()
    assert (config.datastore_name, config.mode, config.path_on_datastore) == (
        store.name,
        "mount",
        "refs/in",
    )
    with pytest.raises(UserErrorException, match="mode"):
        DataReference(store, "x", mode="teleport")


def test_tables(ws: Workspace, tmp_path: Path) -> None:
    store = ws.get_default_datastore()
    csv("t", **{"2019__01__x": "v,w\n1,a\n", "2019__02__x": "v,w\n2,b\n"})
    store.upload("t", "tables/in", overwrite=True, show_progress=False)
    table = Dataset.Tabular.from_delimited_files(
        path=(store, "tables/in/**/*.csv"), partition_format="/{month:yyyy/MM}/x.csv",
        header=PromoteHeadersBehavior.ALL_FILES_HAVE_SAME_HEADERS,
    )  # fmt: skip
    timed = table.with_timestamp_columns("month").register(
        ws, "timed table", create_new_version=True
    )
    assert timed.timestamp_columns == ("month", None)
    late = Dataset.get_by_name(ws, "timed table").time_after(
        pd.Timestamp(2019, 2, 1).to_pydatetime()
    )
    assert late.to_pandas_dataframe()["v"].tolist() == [2]
    named = late.register(ws, "late table", create_new_version=True)
    assert Dataset.get_by_id(ws, named.id).keep_columns("w").to_pandas_dataframe()[
        "w"
    ].tolist() == ["b"]
    for written in (table.to_csv_files(), table.to_parquet_files()):
        assert len(written.to_path()) == 1
    frame = pd.DataFrame({"x": [1, 2]})
    kept = Dataset.Tabular.register_pandas_dataframe(
        frame, (store, "frames"), "a frame", show_progress=False
    )
    assert kept.to_pandas_dataframe().equals(frame)
    assert (
        Dataset.Tabular.from_parquet_files((store, "frames/*.parquet"))
        .to_pandas_dataframe()
        .equals(frame)
    )
    other = table.take(1).register(ws, "timed table", create_new_version=True)
    assert other.version == timed.version + 1
    assert [each.name for each in tmp_path.iterdir()] == ["t"]  # reading leaves nothing behind


READ = """
import sys
from azureml.core import Dataset, Run
run = Run.get_context()
table = run.input_datasets["table"]
assert sys.argv[1] == table.id == run.input_datasets["table"].id
print(type(table).__name__, table.to_pandas_dataframe()["v"].tolist())
print(run.input_datasets["files"].to_path(), "files" in run.input_datasets)
print(open(run.input_datasets["path"]).read().strip())
same = Dataset.get_by_name(run.experiment.workspace, "in run table")
print(same.id == table.id, same.version)
try:
    run.input_datasets["nope"]
except KeyError as error:
    print("KeyError", error)
"""


def test_inputs_inside_a_run(ws: Workspace, here: Environment) -> None:
    store = ws.get_default_datastore()
    csv("d", a="v\n1\n2\n")
    files = Dataset.File.from_files(
        store.upload("d", "inside", overwrite=True, show_progress=False)
    )
    table = Dataset.Tabular.from_delimited_files((store, "inside/a.csv")).take(1)
    table = table.register(ws, "in run table", create_new_version=True)
    one = Dataset.File.from_files((store, "inside/a.csv"))
    run = run_script(
        ws, here, READ, table.as_named_input("table"), files.as_named_input("files"),
        one.as_named_input("path").as_mount(),
    )  # fmt: skip
    run.wait_for_completion()
    run.download_file("user_logs/std_log.txt", "log.txt")
    assert Path("log.txt").read_text().splitlines() == [
        "TabularDataset [1]", "['/a.csv'] True", "v", "1", "2", f"True {table.version}", "KeyError 'nope'",
    ]  # fmt: skip


def test_outputs_of_a_run_for_the_next(ws: Workspace, here: Environment) -> None:
    """What the notebook on resumed training does."""
    save = "import os; os.makedirs('outputs/deep'); open('outputs/deep/w', 'w').write('weights')"
    run = run_script(ws, here, save)
    run.wait_for_completion()
    place = run._get_outputs_datapath()
    reference = place.create_data_reference(
        datapath_compute_binding=DataPathComputeBinding(mode="mount")
    )
    show = "import os, sys; print(open(os.path.join(sys.argv[2], 'deep/w')).read())"
    Path("source/train.py").write_text(show)
    config = ScriptRunConfig(
        "source", "train.py", ["--resume-from", str(reference)], environment=here
    )
    config.run_config.data_references = {reference.data_reference_name: reference.to_config()}
    resumed = Experiment(ws, "data").submit(config)
    resumed.wait_for_completion()
    resumed.download_file("user_logs/std_log.txt", "log.txt")
    assert Path("log.txt").read_text() == "weights\n"
    store = Datastore.get(ws, "workspaceartifactstore")
    files = Dataset.File.from_files((store, f"ExperimentRun/dcid.{run.id}/outputs/deep/w"))
    assert files.to_path() == ["/w"]
    for path in ("nope", f"ExperimentRun/dcid.{run.id}/nope", "ExperimentRun/dcid.none/outputs"):
        with pytest.raises(UserErrorException):
            Dataset.File.from_files((store, path)).to_path()
