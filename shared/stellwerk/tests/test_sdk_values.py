"""Pure conversions: metrics, arguments, conda dependencies, log text."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stellwerk import CondaDependencies, Dataset, Environment, ScriptRunConfig, UserError
from stellwerk.answers import Series
from stellwerk.api import DatasetView
from stellwerk.cli.options import size
from stellwerk.dataset import FileDataset
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.metrics import shaped
from stellwerk.runspec import EnvironmentReference, InputArgument
from stellwerk.script_data import argument
from stellwerk.sizes import size_text
from stellwerk.text import LogText

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def metrics(*logged: tuple[str, str, Any]) -> dict[str, Any]:
    series = [
        Series(run_id="r1", name=name, kind=kind, values=[value]) for name, kind, value in logged
    ]
    return shaped(series, "r1")


@pytest.mark.parametrize(
    ("logged", "value"),
    [
        ([("scalar", 0.5)], 0.5),
        ([("scalar", 0.5), ("scalar", 0.6)], [0.5, 0.6]),
        ([("scalar", "text")], "text"),
        ([("list", [1, 2, 3])], [1, 2, 3]),
        ([("list", [7])], 7),
        ([("list", [1, 2]), ("list", [3])], [1, 2, 3]),
        ([("row", {"a": 1, "b": 2})], {"a": 1, "b": 2}),
        ([("row", {"a": 1, "b": 2}), ("row", {"a": 3, "b": 4})], {"a": [1, 3], "b": [2, 4]}),
        ([("table", {"a": [1, 2]})], {"a": [1, 2]}),
        ([("table", {"a": [1], "b": ["x"]})], {"a": 1, "b": "x"}),
        ([("image", "plot_1.png")], "aml://artifactId/ExperimentRun/dcid.r1/plot_1.png"),
        ([("scalar", None)], None),
    ],
)
def test_metric_shapes(logged: list[tuple[str, Any]], value: Any) -> None:
    assert metrics(*(("m ", kind, each) for kind, each in logged)) == {"m ": value}


def test_metric_not_finite() -> None:
    found = metrics(("m", "scalar", "NaN"), ("m", "scalar", "-Infinity"))["m"]
    assert math.isnan(found[0])
    assert found[1] == -math.inf


def dataset(name: str | None = None) -> FileDataset:
    version = 2 if name else None
    view = DatasetView(
        dataset_id="ab" * 16, name=name, version=version, files=1, source="files", created_at=NOW
    )
    return FileDataset(view=view)


class Noisy:
    pass


@pytest.mark.parametrize(
    ("given", "sent"),
    [("--x", "--x"), (50, "50"), (0.001, "0.001"), (1e-05, "1e-05"), (True, "True"),
     (Path("a/b"), "a/b"), ("; rm -rf", "; rm -rf"), ("", "")],
)  # fmt: skip
def test_arguments_become_text(given: object, sent: str) -> None:
    assert argument(0, given) == sent


@pytest.mark.parametrize("given", [None, Noisy(), dataset()])
def test_arguments_without_meaning(given: object) -> None:
    with pytest.raises(UserError, match=r"arguments\[3\]"):
        argument(3, given)


def test_dataset_argument_and_default_name() -> None:
    config = dataset().as_mount()
    assert config.name.startswith("input_")
    assert len(config.name) == len("input_") + 8
    assert config.name == dataset().as_mount().name
    assert argument(0, config) == InputArgument(input=config.name)
    assert dataset().as_named_input("mnist").as_download().name == "mnist"
    with pytest.raises(UserError, match="cannot be an input's name"):
        dataset().as_named_input("2x")


def test_spec_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "t.py").touch()
    data = dataset("mnist dataset").as_named_input("mnist").as_mount()
    config = ScriptRunConfig(
        str(tmp_path), "t.py", ["--data", data, "--batch", 50], compute_target="cpu-cluster"
    )
    spec = config.spec(None, "0" * 64, {"k": None})  # type: ignore[arg-type]
    assert spec.arguments == ("--data", InputArgument(input="mnist"), "--batch", "50")
    assert spec.inputs["mnist"].model_dump() == {
        "dataset": "mnist dataset", "version": 2, "mode": "mount", "path": None,
            "lazy": None,
    }  # fmt: skip
    assert (spec.target, spec.max_duration_s, spec.tags) == ("cpu-cluster", 2592000, {"k": None})


def test_command_forms(tmp_path: Path) -> None:
    data = dataset().as_named_input("d").as_mount()
    config = ScriptRunConfig(str(tmp_path), command=["python", "t.py", data, 3])
    spec = config.spec(None, "0" * 64, {})  # type: ignore[arg-type]
    assert spec.command == ("python", "t.py")
    assert spec.arguments == (InputArgument(input="d"), "3")
    shell = ScriptRunConfig(str(tmp_path), command="echo $HOME | cat")
    assert shell.spec(None, "0" * 64, {}).command == ("/bin/sh", "-c", "echo $HOME | cat")  # type: ignore[arg-type]


def test_config_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file 'nope\.py' in source_directory"):
        ScriptRunConfig(str(tmp_path), "nope.py").check()
    with pytest.raises(UserError, match="exactly one of script and command"):
        ScriptRunConfig(str(tmp_path)).check()
    with pytest.raises(UserError, match="docker_runtime_config"):
        ScriptRunConfig(str(tmp_path), "a.py", docker_runtime_config=object())  # type: ignore[arg-type]
    (tmp_path / "a.py").touch()
    with pytest.raises(UserError, match=r"priority: got 101\."):
        ScriptRunConfig(str(tmp_path), "a.py", priority=101).spec(None, "0" * 64, {})  # type: ignore[arg-type]
    several = ScriptRunConfig(
        str(tmp_path), "a.py", distributed_job_config={"backend": "mpi", "node_count": 2}
    )
    with pytest.raises(UserError, match=r"node_count: got 2; a run has one node here"):
        several.spec(None, "0" * 64, {})  # type: ignore[arg-type]
    assert ScriptRunConfig(str(tmp_path), "a.py", arguments="--a 'b c'").arguments == ["--a", "b c"]


def test_one_name_for_two_inputs(tmp_path: Path) -> None:
    named = dataset().as_named_input("d")
    config = ScriptRunConfig(str(tmp_path), "a.py", [named.as_mount(), named.as_download()])
    with pytest.raises(UserError, match="different inputs"):
        config.spec(None, "0" * 64, {})  # type: ignore[arg-type]


def test_conda_dependencies_round_trip() -> None:
    made = CondaDependencies.create(
        pip_packages=["keras>=3.10", "matplotlib"],
        conda_packages=["numpy=2.0"],
        python_version="3.11",
    )
    made.add_channel("conda-forge")
    made.add_pip_package("keras>=3.10")
    assert made.pip_packages == ["keras>=3.10", "matplotlib"]
    assert made.definition() == EnvironmentDefinition(
        python="3.11", channels=("conda-forge",), conda_packages=("numpy=2.0",),
        pip_packages=("keras>=3.10", "matplotlib"),
    )  # fmt: skip


def test_environment_from_files(tmp_path: Path) -> None:
    conda = tmp_path / "conda.yml"
    conda.write_text("channels: [conda-forge]\ndependencies: ['python=3.11', {pip: [keras]}]\n")
    environment = Environment.from_conda_specification("e", str(conda))
    assert environment.python.conda_dependencies.pip_packages == ["keras"]
    assert environment.definition().channels == ("conda-forge",)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("keras==3.10 # yes\n\n")
    found = Environment.from_pip_requirements("e", str(requirements)).definition()
    assert found.pip_packages == ("keras==3.10",)
    conda.write_text("dependencies: [")
    with pytest.raises(UserError, match="conda file"):
        Environment.from_conda_specification("e", str(conda))
    requirements.write_text("--index-url http://x\n")
    with pytest.raises(UserError):
        Environment.from_pip_requirements("e", str(requirements))
    with pytest.raises(UserError, match="cannot read"):
        Environment.from_conda_specification("e", str(tmp_path / "nope.yml"))


def test_environment_refuses_typos_and_sees_changes() -> None:
    environment = Environment("e")
    with pytest.raises(AttributeError):
        environment.dokcer = 1  # type: ignore[attr-defined]
    environment.version, environment._registered = "3", environment.definition()
    assert environment.reference() == EnvironmentReference(name="e", version=3)
    environment.python.conda_dependencies.add_pip_package("keras")
    assert environment.reference() is None
    environment.environment_variables["A"] = "b"
    assert environment.definition().environment_variables == {"A": "b"}


def test_from_files_of_a_local_path() -> None:
    with pytest.raises(UserError, match=r"upload_directory"):
        Dataset.File.from_files("data/mnist")
    urls = Dataset.File.from_files(["https://x.example/a", "https://x.example/b"])
    assert urls.as_mount().name.startswith("input_")


def test_log_text_on_a_terminal() -> None:
    text = LogText(neutralise=True)
    parts = [
        b"a\x1b[31mred\x1b[0m \x1b]0;ti",
        b"tle\x07b\x00\x9b",
        "ü".encode()[:1],
        "ü".encode()[1:],
    ]
    shown = "".join(text.feed(part) for part in parts) + text.feed(b"", final=True)
    assert shown == "ared b\ufffd\ufffdü"
    plain = LogText(neutralise=False)
    assert plain.feed(b"\x1b[31m\xff") == "\x1b[31m\ufffd"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (999, "999 B"),
        (1024, "1.0 kB"),
        (300_000_000, "300.0 MB"),
        (999_960, "1.0 MB"),
        (20_000_000_000, "20.0 GB"),
        (3_500_000_000_000, "3.5 TB"),
    ],
)
def test_sizes_are_shown_as_options_take_them(given: int, shown: str) -> None:
    assert size_text(given) == shown
    assert size(shown, "--max-size") == pytest.approx(given, rel=0.05)
