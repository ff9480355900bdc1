"""Conda packages where the builder has an engine and no bubblewrap: the walls are a container's."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import environments
import images as stand_ins
import pytest
from docker.errors import ImageNotFound
from engine import client
from environments import run

sys.path.append(str(Path(__file__).parents[2] / "services/environment-build/tests"))

from conda_building import build, failure, wants
from conda_channel import PLACEHOLDER, PLATFORM, CondaChannel

from stellwerk.events.image import ENVIRONMENT_FOLDER, IMAGE_ENVIRONMENT
from stellwerk_environment_build import engine_cell, image_engine
from stellwerk_environment_build.build_cell import BuildCell, CellSettings, find_cell
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.cache import EnvironmentCache, Ready
from stellwerk_environment_build.conda_channels import ChannelSettings
from stellwerk_environment_build.construction import Limits
from stellwerk_environment_build.image_engine import NAME, ImageSettings
from stellwerk_environment_build.images import ImageMaker
from stellwerk_kit.testing import wait_until

BUILDER = "conda-test"
SPY = """#!/bin/bash
{{ env; cat {outside}; ls {cache}/.uv /sys/class/net; }} >> "$(dirname "$0")/../seen" 2>/dev/null
echo reached >> {outside} 2>/dev/null
setsid sleep 1000 &
exec "$(dirname "$0")/python3.11" "$@"
"""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No container of a build is there that was not before."""
    before = {each["Id"] for each in cells()}
    yield
    assert {each["Id"] for each in cells()} <= before


@pytest.fixture
def settings() -> ImageSettings:
    return replace(ImageSettings(stand_ins.base()), builder=BUILDER)


@pytest.fixture
def cell(settings: ImageSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildCell:
    monkeypatch.setenv("PATH", "/nowhere")
    found, missing = find_cell(CellSettings("require"), tmp_path, settings)
    assert found is not None, missing
    return found


def cells(builder: str = BUILDER) -> list[Any]:
    found: list[Any] = client().api.containers(all=True, filters={"name": f"^/{NAME}{builder}-"})
    return found


def forget(*made: Ready) -> None:
    for each in made:
        with suppress(ImageNotFound):  # other tests take all away that bear the platform's name
            client().images.remove(str(each.image), force=True)


def builder(folder: Path, channel: CondaChannel, images: ImageSettings) -> Builder:
    return Builder(
        EnvironmentCache(folder / "cache"),
        [],
        limits=Limits(workers=1),
        channels=ChannelSettings("channels", {"ours": channel.address}),
        sandbox=CellSettings("require"),
        images=ImageMaker(images),
        environ={
            "PATH": os.defpath,
            "HOME": str(folder),
            "UV_INDEX_URL": "https://name:geheim@index.invalid/simple",
            "RATTLER_AUTH_FILE": str(folder / "geheim"),
        },
    )


async def test_packages_are_installed_and_started_in_containers(
    tmp_path: Path, settings: ImageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    outside, channel = tmp_path / "outside", CondaChannel(tmp_path / "channel")
    outside.write_text("mine")
    spy = SPY.format(outside=outside, cache=tmp_path / "cache")
    channel.add_whole_python(environments.PYTHON, spy.encode())
    channel.add_module("tool")
    scripts = {"etc/conda/activate.d/x.sh": b'export WHERE="$CONDA_PREFIX/x"\n'}
    channel.add("setter", "1.0", scripts, subdir=PLATFORM)
    log: list[str] = []
    ready = (await build(builder(tmp_path, channel, settings), wants("tool", "setter"), log)).ready
    assert "without a sandbox" not in "".join(log)
    assert ready.variable_warnings == ()
    assert dict(ready.package_variables)["WHERE"] == f"{ENVIRONMENT_FOLDER}/x"
    said = (tmp_path / "cache" / ready.env_id / "seen").read_text()
    assert "PATH=" in said
    assert "\nlo\n" in said
    for private in ("geheim", "mine", "CACHEDIR", "eth0"):
        assert private not in said
    assert outside.read_text() == "mine"
    try:
        assert run(str(ready.image), "import tool; print(tool.VERSION)") == "1.0\n"
    finally:
        forget(ready)


async def test_in_an_image_a_package_is_a_layer_that_knows_its_place(
    tmp_path: Path, settings: ImageSettings
) -> None:
    """And that other images have as well, in the order that the engine needs."""
    channel = CondaChannel(tmp_path / "channel")
    channel.add_whole_python(environments.PYTHON)
    for name in ("tool", "added"):
        channel.add_module(name)
    files = {"etc/place": PLACEHOLDER.encode(), "lib/big": b"1" * 100_000}
    channel.add("place", "1.0", files, subdir=PLATFORM)
    made, log = builder(tmp_path, channel, settings), list[str]()
    one = (await build(made, wants("tool", "place"))).ready
    two = (await build(made, wants("tool", "place", "added"), log)).ready
    try:
        assert len(one.image_layers) == 4
        assert len(two.image_layers) == 5
        assert two.image_layers[:2] == one.image_layers[:2]  # Python, place
        assert set(one.image_layers) - set(two.image_layers) == {one.image_layers[-1]}
        assert [line for line in log if "2 of 5 layers" in line]
        code = f"print(open('{IMAGE_ENVIRONMENT}/etc/place').read())"
        assert run(str(two.image), code) == f"{IMAGE_ENVIRONMENT}\n"
        says = [
            "import subprocess",
            f"print(subprocess.check_output('{IMAGE_ENVIRONMENT}/bin/added-says'))",
        ]
        assert run(str(two.image), "; ".join(says)) == "b'1.0\\n'\n"
    finally:
        forget(one, two)


def test_a_cell_is_as_narrow_as_one_of_bubblewrap(cell: BuildCell, tmp_path: Path) -> None:
    script = "grep -E 'Cap(Prm|Eff|Bnd)|NoNewPrivs' /proc/self/status; ls /sys/class/net; echo $A"
    writes = f"touch {tmp_path}/readable/x /usr/x /x; touch {tmp_path}/writable/x; exit 3"
    for name in ("readable", "writable", "secret"):
        (tmp_path / name).mkdir()
    done = subprocess.run(
        cell.command(
            ["/bin/sh", "-c", f"{script}; ls {tmp_path}; {writes}"],
            readable=(tmp_path / "readable", tmp_path / "none"),
            writable=(tmp_path / "writable",),
        ),
        env={"PATH": os.defpath, "A": "its own"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.split("\n")[:-1] == [
        *(f"{name}:\t{'0' * 16}" for name in ("CapPrm", "CapEff", "CapBnd")),
        *("NoNewPrivs:\t1", "lo", "its own", "readable", "writable"),
    ]
    assert done.stderr.count("Read-only file system") == 3
    assert [path.name for path in tmp_path.rglob("x")] == ["x"]


@pytest.fixture
async def sleeping(cell: BuildCell) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A program that would run on, in a cell of its own."""
    before = {each["Id"] for each in cells()}
    process = subprocess.Popen(
        cell.command(["/bin/sh", "-c", "setsid sleep 1000 & sleep 1000"]),
        env={"PATH": os.defpath, "SECRET": "geheim"},
    )
    await wait_until(
        lambda: [c for c in cells() if c["Id"] not in before and c["State"] == "running"], 30.0
    )
    yield process
    process.kill()
    process.wait()
    await wait_until(lambda: {each["Id"] for each in cells()} <= before, 30.0)


async def test_a_program_ends_with_who_started_it_and_its_environment_is_not_the_engines(
    sleeping: subprocess.Popen[bytes],
) -> None:
    """That its container goes, whole, is what the fixture waits for."""
    (found,) = cells()
    told = json.dumps(client().api.inspect_container(found["Id"]))
    assert str(os.getuid()) in told
    assert "geheim" not in told
    assert sleeping.poll() is None


KILLED = """
import os, signal
from docker import APIClient
from stellwerk_environment_build import engine_cell
APIClient.attach_socket = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
engine_cell.main()
"""


async def test_a_cell_whose_maker_was_killed_before_its_start_goes(
    settings: ImageSettings, sleeping: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is older than any that is still to start; no other builder's, and none that runs."""
    (running,) = cells()
    other = replace(settings, builder="another-conda-test")
    for each in (settings, other):
        about = engine_cell.walls_by_engine(each)[-1]
        words = [sys.executable, "-c", KILLED, about, "--", "/bin/true"]
        assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    engine_cell.walls_by_engine(settings)
    assert sorted(each["State"] for each in cells()) == ["created", "running"]
    monkeypatch.setattr(image_engine, "UNSTARTED_S", 0.0)
    engine_cell.walls_by_engine(settings)
    assert [each["Id"] for each in cells()] == [running["Id"]]
    assert sleeping.poll() is None
    assert [each["State"] for each in cells(other.builder)] == ["created"]
    engine_cell.walls_by_engine(other)
    assert cells(other.builder) == []


@pytest.mark.usefixtures("engine_refuses")
async def test_while_the_engine_is_away_nothing_is_installed(
    tmp_path: Path, settings: ImageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = CondaChannel(tmp_path / "channel")
    channel.add_module("tool")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    found = await failure(builder(tmp_path, channel, settings), wants("tool"))
    assert (found.code, found.retryable) == ("env.engine_unreachable", True)
