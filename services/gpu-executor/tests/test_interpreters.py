"""Which Python of the machine is meant, and what stands behind the shims of version managers."""

import os
import sys
from pathlib import Path

import pytest

from stellwerk_gpu_executor import interpreters
from stellwerk_gpu_executor.interpreters import (
    InterpreterError,
    Interpreters,
    refuse_written_by_runs,
)


def program(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_what_a_shim_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = program(tmp_path / "shims/python3", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:{os.environ['PATH']}")
    found = Interpreters(Path("/none"))
    assert await found.find("python3") == sys.executable
    assert await found.find(shim) == shim, "a path is the user's: nothing there is started here"
    program(tmp_path / "shims/python3", "echo /another/python")
    assert await found.find("python3") == sys.executable, "kept for a while"
    monkeypatch.setattr(interpreters, "KEPT_S", 0.0)
    assert await Interpreters(Path("/none")).find("python3") == "/another/python"


async def test_a_wrapper_elsewhere_is_itself(tmp_path: Path) -> None:
    wrapper = program(tmp_path / "bin/python3", f'exec {sys.executable} "$@"')
    assert await Interpreters(Path("/none")).find(wrapper) == wrapper


@pytest.mark.parametrize("text", ["exit 127", "echo relative", "kill -9 $$", "sleep 60"])
async def test_a_shim_without_a_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(interpreters, "ANSWER_S", 1.0)
    program(tmp_path / "shims/python3", text)
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:{os.environ['PATH']}")
    with pytest.raises(InterpreterError, match="which starts no Python"):
        await Interpreters(Path("/none")).find("python3")


async def test_the_platforms_settings_are_no_shims_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STELLWERK_S3_CREDENTIALS", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYENV_VERSION", "3.11")
    program(
        tmp_path / "shims/python3",
        'echo "/$PYENV_VERSION/$STELLWERK_S3_CREDENTIALS$AWS_SECRET_ACCESS_KEY"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:{os.environ['PATH']}")
    assert await Interpreters(Path("/none")).find("python3") == "/3.11/"


async def test_a_link_to_a_shim_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "shims/python3", f'exec {sys.executable} "$@"')
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(tmp_path / "shims/python3")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert await Interpreters(Path("/none")).find("python3") == sys.executable


def test_what_runs_write_is_no_interpreter(tmp_path: Path) -> None:
    runs = tmp_path / "executor"
    theirs = program(runs / "python3", "true")
    ours = program(tmp_path / "bin/python3", "true")
    (runs / "out").symlink_to(ours)
    (tmp_path / "in").symlink_to(theirs)
    (tmp_path / "again").symlink_to(runs)
    refuse_written_by_runs(ours, runs)
    refuse_written_by_runs(sys.executable, runs)
    for path in (
        theirs,
        runs / "out",
        tmp_path / "in",
        tmp_path / "again/python3",
        f"/proc/{os.getpid()}/root{ours}",
        f"/dev/fd/../../{os.getpid()}/root{ours}",
        f"{tmp_path}/bin/../bin/python3",
    ):
        with pytest.raises(InterpreterError, match="to where runs write"):
            refuse_written_by_runs(str(path), runs)


async def test_none_of_the_executors_folder_is_found(tmp_path: Path) -> None:
    theirs = program(tmp_path / "python3", "true")
    with pytest.raises(InterpreterError, match="to where runs write"):
        await Interpreters(tmp_path).find(theirs)


async def test_none(tmp_path: Path) -> None:
    with pytest.raises(InterpreterError, match="is not on this node"):
        await Interpreters(Path("/none")).find(str(tmp_path / "python"))
