"""Images of environments with conda packages: what the second one of mostly the same moves.

No channel of the internet is asked: wheels are made into conda packages of a channel in a folder.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from image_builds import forgotten
from measure import Report

PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "keras")
ROUNDS = 3
UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
PYTHON = Path("/usr/bin/python3.11")
"""Debian's: on this machine and in the tests' base image at the same place."""


def conda_images(base: str, folder: Path, report: Report) -> None:
    """The figures, with a registry and without."""
    sys.path.append(str(Path(__file__).parents[2] / "services/environment-build/tests"))
    from servers_in_containers import registry

    channel = _channel(folder)
    for way, place in (("registry", registry()), ("engine", nullcontext(None))):
        with place as host, forgotten(host):
            made = asyncio.run(_measured(_builder(folder / way, channel, base, host)))
        seconds, moved = zip(*made, strict=True)
        later, sent = statistics.median(seconds[1:]), statistics.median(moved[1:])
        report.add(
            "images.conda_second_over_first", later / seconds[0], "ratio", "—", True, way=way,
            first=round(seconds[0], 2), later=round(later, 2), first_moved=moved[0],
            later_moved=sent, moved_over_first=round(sent / moved[0], 5),
        )  # fmt: skip


async def _measured(builder: Any) -> list[tuple[float, float]]:
    """Of environments one after another: seconds from installed to image, and bytes moved."""
    from conda_building import build, wants

    await build(builder, wants("added0"))  # the base is there, its Python tried
    found = []
    for number in range(1 + ROUNDS):
        log = _Clocked()
        wanted = wants(*(f"{each}-all" for each in PACKAGES), f"added{number}")
        await build(builder, wanted, log)
        (began,) = (at for at, line in enumerate(log) if line.startswith("[4/4]"))
        (told,) = (each for line in log for each in re.findall(r"([\d.]+) (\w+) moved", line))
        found.append((log.times[-1] - log.times[began], float(told[0]) * UNITS[told[1]]))
    return found


class _Clocked(list[str]):
    """A build's log, with when each line came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def append(self, line: str) -> None:
        self.times.append(time.perf_counter())
        super().append(line)


def _channel(folder: Path) -> Any:
    from conda_channel import CondaChannel

    from stellwerk_environment_build import uv_command

    channel = CondaChannel(folder / "channel")
    channel.add_whole_python(PYTHON)
    for number in range(1 + ROUNDS):
        channel.add_module(f"added{number}")
    for name in PACKAGES:
        target = folder / "wheels" / name
        command = [uv_command.uv_binary(), "pip", "install", "--quiet", "--python", str(PYTHON)]
        done = [*command, "--no-deps", "--target", str(target), name]
        subprocess.run(done, check=True, env=os.environ)
        files = {
            f"site-packages/{path.relative_to(target)}": path.read_bytes()
            for path in target.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        link = {"noarch": {"type": "python"}, "package_metadata_version": 1}
        extra = {"info/link.json": json.dumps(link).encode()}
        channel.add(f"{name}-all", "1.0", files, noarch="python", extra=extra)
    return channel


def _builder(folder: Path, channel: Any, base: str, host: str | None) -> Any:
    from stellwerk_environment_build.builder import Builder
    from stellwerk_environment_build.cache import EnvironmentCache
    from stellwerk_environment_build.conda_channels import ChannelSettings
    from stellwerk_environment_build.image_engine import ImageSettings
    from stellwerk_environment_build.images import ImageMaker

    folder.mkdir()
    return Builder(
        EnvironmentCache(folder / "cache"),
        [],
        channels=ChannelSettings("channels", {"ours": channel.address}),
        images=ImageMaker(ImageSettings(base, host)),
    )
