"""Hand-made wheels in a folder, and builders that install from nowhere else."""

import base64
import hashlib
import os
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.cache import EnvironmentCache
from stellwerk_environment_build.construction import Limits
from stellwerk_environment_build.interpreters import Interpreter
from stellwerk_environment_build.uv_command import IndexOptions


@pytest.fixture
def python() -> Interpreter:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Interpreter(version, Path(sys.executable).resolve())


@pytest.fixture
def make_wheel(tmp_path: Path) -> Callable[..., Path]:
    """``make_wheel(name, version, files, requires)`` -> path in ``tmp_path/wheels``."""

    def make(
        name: str,
        version: str = "1.0",
        files: Mapping[str, str] | None = None,
        requires: tuple[str, ...] = (),
    ) -> Path:
        info = f"{name}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
        contents = {
            **({f"{name}.py": f"VERSION = {version!r}\n"} if files is None else files),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in contents.items())
        contents[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
        target = tmp_path / "wheels" / f"{name}-{version}-py3-none-any.whl"
        target.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(target, "w") as archive:
            for path, text in contents.items():
                archive.writestr(path, text)
        return target

    return make


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture
def make_builder(tmp_path: Path, python: Interpreter) -> Callable[..., Builder]:
    """A builder on ``tmp_path/cache`` that knows only the wheels of ``make_wheel``."""

    def make(**changes: Any) -> Builder:
        (tmp_path / "wheels").mkdir(exist_ok=True)
        options: dict[str, Any] = {
            "index": IndexOptions(find_links=(tmp_path / "wheels",), no_index=True),
            "limits": Limits(heartbeat_s=0.5, workers=1),
            "environ": {"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            **changes,
        }
        root = options.pop("root", tmp_path / "cache")
        return Builder(EnvironmentCache(root), [python], **options)

    return make


@pytest.fixture
def hanging_index() -> Iterator[str]:
    """An index that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/simple"
