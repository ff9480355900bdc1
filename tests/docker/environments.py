"""Builders of environments for tests: wheels made by hand, images made by the tests' engine."""

import hashlib
import os
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from engine import client

from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk_environment_build.builder import Builder, BuildResult
from stellwerk_environment_build.cache import EnvironmentCache
from stellwerk_environment_build.construction import Limits
from stellwerk_environment_build.failures import BuildFailedError, Failure
from stellwerk_environment_build.image_engine import ImageSettings
from stellwerk_environment_build.images import ImageMaker
from stellwerk_environment_build.interpreters import find_interpreters
from stellwerk_environment_build.uv_command import IndexOptions

PYTHON = Path("/usr/bin/python3.11")
"""Debian's, which the base image has as well."""


async def builder(folder: Path, settings: ImageSettings, *, objects: Any = None) -> Builder:
    """One on ``folder`` that installs the wheels alpha and beta from nowhere else."""
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    for name in ("alpha", "beta"):
        wheel(wheels, name)
    interpreters = [each for each in await find_interpreters((PYTHON,)) if each.path == PYTHON]
    return Builder(
        EnvironmentCache(folder / "cache"),
        interpreters,
        index=IndexOptions(find_links=(wheels,), no_index=True),
        limits=Limits(workers=1),
        environ={"PATH": os.environ["PATH"], "HOME": str(folder)},
        images=ImageMaker(settings),
        objects=objects,
    )


async def build(
    made: Builder, wanted: EnvironmentDefinition, log: list[str] | None = None
) -> BuildResult:
    """Build it; its log goes into ``log``."""
    spec, identity = made.identify(wanted)
    return await made.build(spec, identity, [].append if log is None else log.append)


async def failing(made: Builder, wanted: EnvironmentDefinition) -> Failure:
    """Why it cannot be built."""
    with pytest.raises(BuildFailedError) as caught:
        await build(made, wanted)
    return caught.value.failure


def run(image: str, code: str, **options: Any) -> str:
    """What a program prints in a container of ``image``, without a network."""
    command = ["python3", "-c", code]
    found: bytes = client().containers.run(
        image, command, remove=True, network_mode="none", **options
    )
    return found.decode()


def wheel(folder: Path, name: str, more: str | None = None) -> None:
    """A pure wheel with one module of that name, and an empty file ``more``."""
    info = f"{name}-1.0.dist-info"
    contents = {
        f"{name}.py": f"WORD = 'from {name}'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if more is not None:
        contents[more] = ""
    record = ""
    for path, text in contents.items():
        digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in {**contents, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
