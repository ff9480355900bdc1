"""The tutorial "Train Keras models at scale with Azure Machine Learning", as its reader pastes it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stack import Stack

HERE = Path(__file__).parent
PHASES = ("preparing", "scaling", "starting", "running", "post_processing")
WEB = "http://yann.lecun.com/exdb/mnist/"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PRINTED = r"""Creating a new compute target\.\.\.
Creating\.\.\.
Succeeded
AmlCompute wait for completion finished

Minimum number of nodes requested have been provisioned
(?:.*\n)*?gpu-cluster AmlCompute Succeeded
Out: \['/(?:.*/)?t10k-images-idx3-ubyte\.gz', '/(?:.*/)?t10k-labels-idx1-ubyte\.gz', '/(?:.*/)?train-images-idx3-ubyte\.gz', '/(?:.*/)?train-labels-idx1-ubyte\.gz'\]
RunId: (?P<run>[\w-]+)
Web View: (?P<url>http://\S+)

Streaming azureml-logs/20_image_build_log\.txt
={45}

(?P<build>(?:.*\n)+?)
Streaming user_logs/std_log\.txt
={31}

(?P<log>(?:.*\n)+?)
Execution Summary
=================
RunId: (?P=run)
Web View: (?P=url)

Warnings:
(?P<warnings>(?:.*\n)+?)
Out: (?P<details>.*)
Downloading from outputs/model/model\.h5 to \./model/model\.h5 \.\.\.
Downloading from outputs/model/model\.json to \./model/model\.json \.\.\.
"""


def test_every_snippet_and_what_it_prints(stack: Stack, tmp_path: Path) -> None:
    shutil.copytree(HERE / "tutorial/script", tmp_path / "keras-mnist")
    done = subprocess.run(
        [sys.executable, str(HERE / "cells.py"), str(HERE / "tutorial/tutorial.py")],
        cwd=tmp_path, env=stack.environment, capture_output=True, text=True, timeout=850, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    printed = re.fullmatch(PRINTED, done.stdout)
    assert printed, done.stdout
    # What could not be installed was exchanged, and both the build and the run say so.
    for name in ("tensorflow-gpu==2.0.0", "keras<=2.3.1", "azureml-defaults", "python"):
        assert name in printed["build"].lower() or name in printed["warnings"].lower(), name
    assert "tensorflow-gpu==2.0.0" in printed["warnings"]
    assert "Keras version: 2.15" in printed["log"]

    with stack.http() as http:
        run = http.get(f"/api/v1/runs/{printed['run']}").json()
        assert run["status"] == "Completed"
        assert set(PHASES) <= set(run["phases"])
        metrics = http.get(f"/api/v1/runs/{printed['run']}/metrics").json()["points"]
        names = [point["name"] for point in metrics]
        assert [names.count(name) for name in ("Loss", "Accuracy", "Final test accuracy")] == [
            2,
            2,
            1,
        ]
        assert http.get("/api/v1/models/keras-mnist").json()["path"] == "outputs/model"
        page = http.get(printed["url"])
        assert page.status_code == 200, page.text
        assert page.headers["content-type"].startswith("text/html")
        (entry,) = run["inputs"].values()
        assert entry["name"] == "mnist-dataset"
    assert (tmp_path / "model/model.h5").stat().st_size > 500_000
    assert "hidden1" in (tmp_path / "model/model.json").read_text()

    # Pasted a second time, everything is there: a new run, quickly.
    again = subprocess.run(
        [sys.executable, str(HERE / "cells.py"), str(HERE / "tutorial/tutorial.py")],
        cwd=tmp_path, env=stack.environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout[-4000:]
    assert "Found existing compute target" in again.stdout
