"""``stellwerk azureml check``: what is found in scripts, notebooks and environment files, unrun."""

import json
from pathlib import Path
from typing import Any

import pytest

from stellwerk.cli import main
from stellwerk.migration import sources, stub, usage
from stellwerk.migration.report import check, rows_of

SCRIPT = """
from azureml.core import Workspace, Experiment, ScriptRunConfig as Config, Environment
from azureml.core.compute import AmlCompute, ComputeTarget
import azureml.core
from azureml.exceptions import UserErrorException

print(azureml.core.VERSION)
ws = Workspace.from_config()
try:
    target = ComputeTarget(workspace=ws, name="cpu")
except UserErrorException:
    target = ComputeTarget.create(ws, "cpu", AmlCompute.provisioning_configuration(vm_size="x", wrong=1))
env = Environment("e")
env.python.conda_dependencies.add_pip_package("keras<=2.3.1")
env.docker.enabled = True
with Experiment(ws, "e").start_logging() as run:
    run.log("a", 1)
for each in Experiment(workspace=ws, name="e").get_runs():
    each.frobnicate()
    [child.get_metrics(nme="x") for child in each.get_children()]
ws.compute_targets["cpu"].delete()

def later(workspace: Workspace):
    return workspace.models["m"].download(target_dir=".")
"""


def symbols(code: str) -> dict[str, str]:
    source = sources.Source("x.py")
    source.add("", code)
    found = usage.of(source, stub.table())
    return {row.symbol: row.status for row in rows_of(found.uses)}


def test_types_are_followed_through_calls_loops_and_items() -> None:
    found = symbols(SCRIPT)
    for name in (
        "VERSION", "Workspace.from_config", "UserErrorException", "ComputeTarget.create", "Experiment",
        "Environment.python", "PythonSection.conda_dependencies", "CondaDependencies.add_pip_package",
        "Experiment.start_logging", "Run.log", "Experiment.get_runs", "Run.get_children", "Run.get_metrics",
        "Workspace.compute_targets", "AmlCompute.delete", "Workspace.models", "Model.download", "ScriptRunConfig",
    ):  # fmt: skip
        assert found[name] == "supported", name
    assert found["AmlCompute.provisioning_configuration"] == "substituted"
    assert found["DockerSection.enabled"] == "substituted"
    wrong = {name for name, status in found.items() if status == "not supported"}
    assert wrong == {
        "Run.frobnicate", "Run.get_metrics(nme=)", "AmlCompute.provisioning_configuration(wrong=)",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "symbol"),
    [
        ("from azureml.train.hyperdrive import choice", "azureml.train.hyperdrive.choice"),
        ("import azureml.pipeline.core as p", "azureml.pipeline.core"),
        ("from azureml.core import Frob", "azureml.core.Frob"),
        ("import azureml.nothing", "azureml.nothing"),
        ("from azureml.core.model import InferenceConfig", "InferenceConfig"),
        ("from azureml.core import Model\nModel.deploy(1)", "Model.deploy"),
    ],
)
def test_what_is_not_there_is_named(code: str, symbol: str) -> None:
    assert symbols(code)[symbol] == "not supported"


@pytest.mark.parametrize(
    "code",
    [
        "import numpy as np; np.azureml.x",
        "from . import azureml\nazureml.frob()",
        "from azureml.core import Run\nRun = object\nRun.frob",
        "def f(run): run.frob()",
        "from azureml.core import Run\nx = lambda run: run.frob",
    ],
)
def test_what_cannot_be_followed_is_not_reported(code: str) -> None:
    assert "not supported" not in symbols(code).values()


def notebook(path: Path, *cells: str) -> None:
    content: dict[str, Any] = {
        "nbformat": 4, "metadata": {},
        "cells": [{"cell_type": "markdown", "source": "from azureml import nothing"}]
        + [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells],
    }  # fmt: skip
    path.write_text(json.dumps(content))


def test_a_notebook_is_read_without_its_magics_and_with_the_files_it_writes(tmp_path: Path) -> None:
    notebook(
        tmp_path / "n.ipynb",
        "%matplotlib inline\n!pip install azureml-sdk \\\n  keras\nfrom azureml.core import Workspace\nx = !ls\nws?",
        "%%time\nws = Workspace.from_config()\nif True:\n    !ls\n    ws.frob",
        "%%writefile train.py\nfrom azureml.core import Run\nrun = Run.get_context()\nrun.bad()",
        "%%writefile conda.yml\ndependencies:\n- python=3.6.2\n- pip:\n  - tensorflow-gpu==2.0.0\n",
        "%%bash\nthis is no python",
        "    ws.get_default_datastore()",
    )
    report = check(tmp_path)
    by_path = {file.path: {row.symbol: row for row in file.rows} for file in report.files}
    assert list(by_path) == ["n.ipynb", "n.ipynb > train.py", "n.ipynb > conda.yml"]
    own = by_path["n.ipynb"]
    assert own["Workspace.frob"].where == ("cell 2:5",)
    assert own["Workspace"].where == ("cell 1:4", "cell 2:2")
    assert own["Workspace.get_default_datastore"].status == "supported"
    assert by_path["n.ipynb > train.py"]["Run.bad"].where == ("cell 3:3",)
    gpu = by_path["n.ipynb > conda.yml"]["tensorflow-gpu==2.0.0"]
    assert gpu.status == "substituted"
    assert "2.15" in gpu.note
    assert "syntax" not in own


def test_environment_files_and_addresses_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("azureml-defaults\nkeras<=2.3.1\nnumpy\n")
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "bad.yml").write_text("dependencies:\n- pip:\n  - not a requirement !\n")
    (tmp_path / "a.py").write_text(
        'URL = "http://yann.lecun.com/exdb/mnist/train-images.gz"\nd = "https://example.org"'
    )
    found = {file.path: {r.symbol: r.status for r in file.rows} for file in check(tmp_path).files}
    assert found["requirements.txt"]["azureml-defaults"] == "substituted"
    assert found["requirements.txt"]["keras<=2.3.1"] == "substituted"
    assert found["bad.yml"] == {"environment": "not supported"}
    assert list(found["a.py"]) == ["http://yann.lecun.com/exdb/mnist/train-images.gz"]
    assert "compose.yaml" not in found


def test_requirements_and_curated_names_in_code_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "from azureml.core import Environment\n"
        "from azureml.core.conda_dependencies import CondaDependencies\n"
        "d = CondaDependencies.create(conda_packages=['tensorflow=2.0'], pip_packages=['numpy'])\n"
        "e = Environment.get(ws, name='AzureML-TensorFlow-2.1-GPU')\n"
        "f = Environment.get(ws, 'my-own')\n"
    )
    rows = {row.symbol: row for row in check(tmp_path).files[0].rows}
    assert rows["tensorflow==2.0"].status == "substituted"
    assert rows["environment AzureML-TensorFlow-2.1-GPU"].where == ("4",)
    assert "environment my-own" not in rows


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.py", "print 'python 2'"),
        ("a.ipynb", "{}"),
        ("a.ipynb", "no json"),
        ("a.py", "x = \0"),
        ("b.ipynb", '{"cells": [{"cell_type": "code", "source": "def :"}]}'),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (row,) = check(tmp_path).files[0].rows
    assert (row.symbol, row.status) == ("syntax", "not supported")


def test_bytes_that_are_no_text_and_foreign_folders(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "b.py").write_text("from azureml.core import Frob")
    assert [file.path for file in check(tmp_path).files] == ["a.py"]


def test_nothing_is_run(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import pathlib; pathlib.Path('ran').touch(); 1/0")
    check(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_command_prints_what_is_to_do_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.py").write_text("from azureml.core import Run\nRun.get_context().log('a', 1)\n")
    assert main(["azureml", "check", str(tmp_path)]) == 0
    assert "Run.log" not in capsys.readouterr().out
    assert main(["azureml", "check", "--all", str(tmp_path / "a.py")]) == 0
    assert "Run.log  (2)" in capsys.readouterr().out
    (tmp_path / "b.py").write_text("from azureml.train.hyperdrive import choice\n")
    assert main(["azureml", "check", str(tmp_path)]) == 1
    assert "submit one run for each set" in capsys.readouterr().out
    assert main(["azureml", "check", str(tmp_path), "-o", "json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["summary"] == {"files": 2, "not supported": 1, "substituted": 0, "supported": 3}


@pytest.mark.parametrize("line", ["x = 1", "def f(): pass\nimport os", "package(1)"])
def test_a_line_of_the_table_that_means_nothing_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="means nothing"):
        stub.parse(line)
