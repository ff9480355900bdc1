"""Environments as a user has them: curated, a project with its lock, conda packages, what is in it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import uv
from stack import Stack

sys.path.append(str(Path(__file__).parents[2] / "services/environment-build/tests"))

from conda_channel import MINOR, PLATFORM, CondaChannel

pytestmark = pytest.mark.slow


def ran(stack: Stack, *arguments: str) -> tuple[str, str]:
    """Run id and output of a submitted run that completed."""
    done = stack.command("run", "submit", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.search(r"RunId: (\w+)", done.stdout)[1], done.stdout  # type: ignore[index]


def test_curated_environment_is_there_and_every_run_has_its_bill_of_materials(
    stack: Stack, script_folder: Path
) -> None:
    listed = stack.command("environment", "list", "--curated", "-o", "json")
    names = [each["name"] for each in json.loads(listed.stdout)]
    assert names == ["keras-jax", "keras-tf", "keras-torch", "minimal", "tensorflow-cpu"]
    (script_folder / "hello.py").write_text(
        "import pydantic; print('pydantic', pydantic.VERSION)\n"
    )
    run, said = ran(stack, "--environment", "minimal", str(script_folder / "hello.py"))
    assert "pydantic 2." in said
    with stack.http() as http:
        view = http.get(f"/api/v1/runs/{run}").json()
        answer = http.get(f"/api/v1/runs/{run}/sbom")
    assert answer.headers["content-type"] == "application/vnd.cyclonedx+json"
    document = answer.json()
    assert document["specVersion"] == "1.6"
    assert document["metadata"]["component"]["name"] == view["image"]["env_id"]
    assert {"name": "stellwerk:lock", "value": view["image"]["lock_digest"]} in (
        document["metadata"]["properties"]
    )
    assert any(each["name"] == "pydantic" for each in document["components"])
    by_name = stack.command("environment", "sbom", "minimal")
    assert json.loads(by_name.stdout) == document
    assert json.loads(stack.command("run", "sbom", run[:12]).stdout) == document
    unbuilt = stack.command("environment", "sbom", "keras-torch")
    assert unbuilt.returncode != 0
    assert "not built yet" in unbuilt.stderr
    (script_folder / "r.txt").write_text("six\n")
    refused = stack.command(
        "environment", "register", "Minimal", "--requirements", str(script_folder / "r.txt")
    )
    assert refused.returncode != 0
    assert "cannot be overwritten" in refused.stderr


def test_project_runs_on_what_its_lock_names(stack: Stack, script_folder: Path) -> None:
    project = script_folder / "pyproject.toml"
    head = f'[project]\nname = "mine"\nversion = "1"\nrequires-python = ">={MINOR}"\n'
    project.write_text(head + 'dependencies = ["idna", "six==1.16.0"]\n')
    subprocess.run([uv.find_uv_bin(), "lock", "--quiet"], cwd=script_folder, check=True)
    script = script_folder / "hello.py"
    script.write_text("import six, idna; print('six', six.__version__)\n")
    lock = str(script_folder / "uv.lock")
    _, said = ran(stack, "--pyproject", str(project), "--lock", lock, str(script))
    assert "six 1.16.0" in said
    project.write_text(head + 'dependencies = ["idna", "six"]\n')
    stale = stack.command("run", "submit", "--pyproject", str(project), "--lock", lock, str(script))
    assert stale.returncode != 0
    assert "run uv lock again" in stale.stderr


def test_conda_file_gets_conda_packages(stack: Stack, script_folder: Path) -> None:
    channel = CondaChannel(stack.home / "channel")
    channel.add_python()
    channel.add_module("tool", "2.0")
    told = b'export TOOL_DATA="$CONDA_PREFIX/share/tool"\n'
    channel.add("tool-data", "1.0", {"etc/conda/activate.d/tool.sh": told}, subdir=PLATFORM)
    conda = script_folder / "environment.yml"
    conda.write_text(
        f"channels: [ours]\ndependencies:\n- python={MINOR}\n- tool=2\n- tool-data\n- pip: [six==1.16.0]\n"
    )
    script = script_folder / "hello.py"
    script.write_text(
        "import six, sys, tool\nprint('tool', tool.VERSION, six.__version__, 'conda-meta' in "
        "__import__('os').listdir(sys.prefix))\n"
        "import os; print(os.environ['TOOL_DATA'] == sys.prefix + '/share/tool',"
        " os.environ['CONDA_PREFIX'] == sys.prefix)\n"
    )
    run, said = ran(stack, "--conda", str(conda), str(script))
    assert "Solving 3 conda packages from ours" in said
    assert "tool 2.0 1.16.0 True\nTrue True" in said
    document = json.loads(stack.command("run", "sbom", run).stdout)
    assert "pkg:conda/tool@2.0?build=0&channel=ours&subdir=noarch" in {
        each["bom-ref"] for each in document["components"]
    }
