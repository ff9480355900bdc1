"""The engine dies in the middle of a run: told, nothing hangs, the next run works.

On an engine of its own, in a network namespace of its own: it must not take the other's bridge.
"""

import asyncio
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from environments import build, builder, failing
from test_docker_launcher import LINES, launch_request, launcher, log_holds, read

from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk_environment_build.image_engine import LABEL, ImageSettings, connect
from stellwerk_environment_build.images import ImageMaker
from stellwerk_kit.testing import wait_until


class OwnEngine:
    """A dockerd that tests may kill; ``docker.from_env()`` finds it while the test runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, f"unix://{folder}/docker.sock"
        self.namespace = f"sw-{secrets.token_hex(4)}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            "unshare", "--net", "dockerd", "--data-root", str(self.folder / "data"),
            "--exec-root", str(self.folder / "exec"), "-p", str(self.folder / "pid"), "-H", self.url,
            "--bridge=none", "--iptables=false", "--containerd-namespace", self.namespace,
            "--containerd-plugins-namespace", f"{self.namespace}-plugins", "--log-level", "warn",
        ]  # fmt: skip
        # Where nobody reaps what a killed engine leaves, its dead children look alive to the next.
        for stale in ("pid", "exec/containerd/containerd.pid"):
            (self.folder / stale).unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 60
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < end, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.1)

    def answers(self) -> bool:
        done = subprocess.run(["docker", "-H", self.url, "info"], capture_output=True, check=False)
        return done.returncode == 0 and b"Cannot connect" not in done.stdout + done.stderr

    def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)

    def load(self) -> str:
        """The base image, straight from its root file system."""
        tag = images.base()
        (rootfs,) = images.cache_folder().glob(f"rootfs-{tag.rpartition(':')[2]}.tar")
        environ = {**os.environ, "DOCKER_HOST": self.url}
        command = ["docker", "import", str(rootfs), tag]
        subprocess.run(command, env=environ, check=True, capture_output=True)
        return tag


@pytest.fixture
def own_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnEngine]:
    with tempfile.TemporaryDirectory(prefix="sw-eng-", ignore_cleanup_errors=True) as folder:
        made = OwnEngine(Path(folder))
        try:
            made.start()
            made.load()
            monkeypatch.setenv("DOCKER_HOST", made.url)
            yield made
        finally:
            made.end(signal.SIGTERM)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in sorted((each for each in mounts if each.startswith(folder)), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)


@pytest.mark.usefixtures("engine_refuses")
async def test_killed_engine(own_engine: OwnEngine) -> None:
    with tempfile.TemporaryDirectory(prefix="sw-run-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        async with launcher(folder) as service:
            handle = await service.start(launch_request(folder / "a1", LINES))
            await log_holds(handle, b"3\n")
            own_engine.end(signal.SIGKILL)
            before = len(read(handle.attempt.log))
            await log_holds(handle, b"12\n")  # the run does not need its engine
            assert handle.alive()
            assert len(read(handle.attempt.log)) > before
            own_engine.start()  # which ends what it finds
            record = await handle.wait()
            assert (record.reason, record.exit_code) == ("shim-lost", None), record
            assert "ended from outside" in str(record.message)
            await service.cleanup(handle.attempt)

            handle = await service.start(launch_request(folder / "a2", "print('again')", attempt=2))
            assert (await handle.wait()).exit_code == 0
            assert read(handle.attempt.log) == b"again\n"
            await service.cleanup(handle.attempt)
            assert await service._engine.names() == []


@pytest.mark.usefixtures("engine_refuses")
async def test_engine_killed_in_the_middle_of_a_build(own_engine: OwnEngine) -> None:
    """Told as what it is, which is tried again; and what it left is cleared away."""
    base = images.base()
    text = f"FROM {base}\nVOLUME /data\nRUN touch /x\nRUN sleep 600\n"
    slow = EnvironmentDefinition(dockerfile=text, user_managed=True)
    filters = {"label": LABEL}

    def at_the_last_step() -> bool:
        with connect() as client:
            found = client.api.containers(filters=filters)
            return any("sleep 600" in each["Command"] for each in found)

    with tempfile.TemporaryDirectory(prefix="sw-env-") as name:
        made = await builder(Path(name), ImageSettings(base))
        async with asyncio.TaskGroup() as group:
            failure = group.create_task(failing(made, slow))
            await wait_until(at_the_last_step, 60)
            own_engine.end(signal.SIGKILL)
        found = failure.result()
        assert (found.code, found.retryable) == ("env.engine_unreachable", True), found
        again = await failing(made, slow)
        assert again.code == "env.engine_unreachable"
        own_engine.start()
        await ImageMaker(ImageSettings(base)).sweep()
        with connect() as client:
            assert client.api.containers(all=True, filters=filters) == []
            assert client.api.images(filters={"dangling": True}) == []
            assert client.volumes.list() == []
        quick = EnvironmentDefinition(dockerfile=f"FROM {base}\n", user_managed=True)
        assert (await build(made, quick)).ready.image
