"""Which Python of the machine is meant, and what stands behind the shims of version managers."""

import os
import sys
from pathlib import Path

import pytest

from stellwerk_gpu_executor import interpreters
from stellwerk_gpu_executor.interpreters import InterpreterError, Interpreters


def program(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_what_a_shim_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = program(tmp_path / "shims/python3", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:{os.environ['PATH']}")
    found = Interpreters()
    assert await found.find("python3") == sys.executable
    assert await found.find(shim) == sys.executable
    program(tmp_path / "shims/python3", "echo /another/python")
    assert await found.find(shim) == sys.executable, "kept for a while"
    monkeypatch.setattr(interpreters, "KEPT_S", 0.0)
    assert await Interpreters().find(shim) == "/another/python"


async def test_a_wrapper_elsewhere_is_itself(tmp_path: Path) -> None:
    wrapper = program(tmp_path / "bin/python3", f'exec {sys.executable} "$@"')
    assert await Interpreters().find(wrapper) == wrapper


@pytest.mark.parametrize("text", ["exit 127", "echo relative", "kill -9 $$", "sleep 60"])
async def test_a_shim_without_a_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(interpreters, "ANSWER_S", 1.0)
    shim = program(tmp_path / "shims/python3", text)
    with pytest.raises(InterpreterError, match="which starts no Python"):
        await Interpreters().find(shim)


async def test_the_platforms_settings_are_no_shims_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STELLWERK_S3_CREDENTIALS", "secret")
    shim = program(tmp_path / "shims/python3", 'echo "/seen/$STELLWERK_S3_CREDENTIALS"')
    assert await Interpreters().find(shim) == "/seen/"


async def test_none(tmp_path: Path) -> None:
    with pytest.raises(InterpreterError, match="is not on this node"):
        await Interpreters().find(str(tmp_path / "python"))
