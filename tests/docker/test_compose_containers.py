"""The same platform with runs in containers of their own (``deploy/docker/containers.yml``)."""

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import environments
import images
import pytest
from composed import (
    Composed,
    body,
    demo,
    lines,
    prepared,
    reads,
    register,
    started,
    until_running,
)
from stack import log_text, request, submit, wait_terminal

sys.path.append(str(Path(__file__).parents[2] / "services/environment-build/tests"))

from conda_building import wants
from conda_channel import PLATFORM, CondaChannel

from stellwerk.environment_spec import from_conda_yaml
from stellwerk_kit.testing.waiting import wait_until

WALLS = """
import os, socket
print(os.getuid() != 0, sorted(os.listdir("/sys/class/net")), os.path.exists("/var/run/docker.sock"))
print(os.path.exists("/credentials/s3.json"), len([p for p in os.listdir("/proc") if p.isdigit()]) < 6)
"""


@pytest.fixture(scope="module")
def platform() -> Iterator[Composed]:
    composed = Composed(containers=True)
    composed.environment |= {
        "STELLWERK_BUILD_SANDBOX": "require",
        "STELLWERK_BUILD_CHANNELS": '{"ours": "file:///environments/channel"}',
    }
    with started(composed):
        yield composed


def test_a_run_is_walled_in(platform: Composed) -> None:
    with platform.http() as http:
        run = submit(http, body(WALLS))
        assert wait_terminal(http, run)["status"] == "Completed", platform.logs()
        assert log_text(http, run) == b"True ['lo'] False\nFalse True\n"


SMALL = {"pip_packages": ["packaging"]}
WHERE = "import packaging, sys; print(sys.prefix, packaging.__file__.startswith(sys.prefix))"


def test_environments_are_images_that_other_nodes_pull(platform: Composed) -> None:
    with platform.http() as http:
        run = submit(http, body(WHERE, SMALL))
        view = wait_terminal(http, run, 180)
        assert view["status"] == "Completed", (view, platform.logs())
        assert log_text(http, run) == b"/opt/environment True\n"
        image = view["image"]["image"]
        assert image.startswith(f"127.0.0.1:{platform.ports['STELLWERK_REGISTRY_PORT']}/"), image
        assert "@sha256:" in image
        log = request("GET", http, f"/runs/{run}/logs/azureml-logs/20_image_build_log.txt").text
        assert "Making an image" in log
        assert "pushed to" in log

        platform.forget_images()
        assert platform.environment_images() == []
        again = submit(http, body(WHERE, SMALL))
        view = wait_terminal(http, again, 120)
        assert view["status"] == "Completed", (view, platform.logs())
        assert view["image"]["image"] == image
        assert len(platform.environment_images()) == 1


TOOL = "import os, sys, tool; print(tool.VERSION, sys.prefix, os.environ['WHERE'])"


def test_conda_packages_are_installed_in_containers(platform: Composed, tmp_path: Path) -> None:
    """There is no bubblewrap, and a sandbox is required; the channel is a folder of the volume."""
    channel = CondaChannel(tmp_path / "channel")
    channel.add_whole_python(environments.PYTHON)
    channel.add_module("tool")
    scripts = {"etc/conda/activate.d/x.sh": b'export WHERE="$CONDA_PREFIX/x"\n'}
    channel.add("setter", "1.0", scripts, subdir=PLATFORM)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(channel.folder, "channel")
    assert platform.containers()["environment-build"].put_archive(
        "/environments", packed.getvalue()
    )
    asked = from_conda_yaml(wants("tool", "setter")).model_dump(mode="json", exclude_defaults=True)
    with platform.http() as http:
        run = submit(http, body(TOOL, asked))
        view = wait_terminal(http, run, 180)
        assert view["status"] == "Completed", (view, platform.logs())
        assert log_text(http, run) == b"1.0 /opt/environment /opt/environment/x\n"
        assert view["warnings"] == []


SEES = """
import os, sys
print(os.environ["GREETING"], os.environ.get("LD_PRELOAD"), open("/marker").read().strip())
print(os.environ["STELLWERK_NODE"] != "stolen", os.environ["PATH"].split(":")[:2], sys.executable)
"""


def test_a_run_on_a_dockerfile_of_its_own(platform: Composed) -> None:
    """Built once for both who wait, its log in theirs, its variables the run's but for a few."""
    steps = "ENV GREETING=hello LD_PRELOAD=/none.so STELLWERK_NODE=stolen PATH=/tool:$PATH"
    text = (
        f"FROM {images.base()}\n{steps}\nVOLUME /data\nRUN unset LD_PRELOAD; echo built > /marker\n"
    )
    asked = {"dockerfile": text, "user_managed": True}
    volumes = len(platform.engine.volumes.list())
    with platform.http() as http:
        runs = [submit(http, body(SEES, asked)) for _ in range(2)]
        views = [wait_terminal(http, run, 180) for run in runs]
        for run, view in zip(runs, views, strict=True):
            assert view["status"] == "Completed", (view, platform.logs())
            assert log_text(http, run).decode().splitlines() == [
                "hello None built",
                "True ['/usr/bin', '/tool'] /usr/bin/python3",
            ]
            log = request("GET", http, f"/runs/{run}/logs/azureml-logs/20_image_build_log.txt").text
            assert "Building the dockerfile" in log
            assert sorted(text.split()[3].rstrip(",") for text in view["warnings"]) == [
                "LD_PRELOAD", "STELLWERK_NODE",
            ]  # fmt: skip
        assert len({view["image"]["image"] for view in views}) == 1
        assert "@sha256:" in views[0]["image"]["image"]
        again = platform.command("run", "rerun", runs[0], "--verify")
        assert again.returncode == 0, again.stdout + again.stderr
        bad = submit(http, body(SEES, {"dockerfile": f"FROM {images.base()}\nRUN exit 3\n"}))
        view = wait_terminal(http, bad, 60)
        assert view["error"]["code"] == "env.dockerfile_failed", view
    assert len(platform.engine.volumes.list()) == volumes


def test_main_job_in_containers(platform: Composed) -> None:
    demo(platform)


def test_a_run_outlives_its_executor(platform: Composed) -> None:
    """kill -9 of both executors: the run goes on, its first attempt counts, no line is lost."""
    with platform.http() as http:
        run = submit(http, body(lines(120)))
        until_running(platform, run)
        for executor in ("executor-1", "executor-2"):
            platform.kill(executor)
        view = wait_terminal(http, run, 120)
        assert view["status"] == "Completed", view
        assert log_text(http, run).decode().splitlines() == [f"line {n}" for n in range(120)]
        files = {each["path"] for each in http.get(f"/api/v1/runs/{run}/files").json()["files"]}
        assert not [path for path in files if "attempt_" in path], files
    platform.wait_healthy()


async def test_a_canceled_run_leaves_no_container(platform: Composed) -> None:
    with platform.http() as http:
        run = submit(http, body(lines(600)))
        until_running(platform, run)
        assert http.post(f"/api/v1/runs/{run}/cancel").status_code == 202
        assert wait_terminal(http, run)["status"] == "Canceled"
    await wait_until(lambda: platform.runs() == [], 30)


def test_a_killed_container_costs_an_attempt_not_the_run(platform: Composed) -> None:
    with platform.http() as http:
        run = submit(http, body(lines(60)))
        until_running(platform, run)
        (container,) = platform.runs()
        container.kill()
        assert wait_terminal(http, run, 120)["status"] == "Completed"
        assert log_text(http, run).decode().splitlines() == [f"line {n}" for n in range(60)]


async def test_without_the_means_of_a_mount_data_are_fetched_and_why_is_said(
    platform: Composed, tmp_path: Path
) -> None:
    register(platform, tmp_path, "fetched", 1000)
    with platform.http() as http:
        run = submit(http, reads("fetched", "import os, sys; print(os.stat(sys.argv[1]).st_size)"))
        assert wait_terminal(http, run)["status"] == "Completed", platform.logs()
        assert log_text(http, run) == b"1000\n"
    said = prepared(platform, run)
    assert "fetched before the start, although a lazy mount was asked for: " in said
    assert "this executor is a container that does not share its mounts" in said
    assert "deploy/docker/mounts.yml" in said


CALLS = """
import os, socket
from stellwerk import Dataset, Workspace
workspace = Workspace.from_config()
os.mkdir("words")
open("words/a.txt", "w").write("some words")
words = Dataset.File.upload_directory("words", (workspace.get_default_datastore(), "words"))
(path,) = words.download("copy")
print(open(path).read())
try:
    socket.create_connection(("nats", 4222), 2)
except OSError:
    print("no broker")
"""


def test_runs_may_call_the_platform_where_the_operator_allows_it(platform: Composed) -> None:
    """On the network `runs`: REST, files by presigned addresses there and back, nothing else."""
    platform.environment["STELLWERK_RUN_NETWORK"] = f"{platform.project}_runs"
    platform.up()
    with platform.http() as http:
        run = submit(http, body(CALLS))
        view = wait_terminal(http, run, 120)
        log = log_text(http, run).decode()
        assert view["status"] == "Completed", (log, view)
        assert log.splitlines()[-2:] == ["some words", "no broker"]
