"""Folders of attempts lie apart on the disk."""

import subprocess
from pathlib import Path

import pytest

from stellwerk_gpu_executor import spread as module
from stellwerk_gpu_executor.spread import spread


def _flags(folder: Path) -> str:
    said = subprocess.run(
        ["lsattr", "-d", str(folder)], capture_output=True, text=True, check=False
    )
    return said.stdout.split(" ")[0]


def test_a_folder_is_made_and_its_file_system_told_where_it_listens(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    kept = before / "kept"
    kept.touch()
    for folder in (tmp_path / "new" / "attempts", before, before):
        spread(folder)
        assert folder.is_dir()
        told = subprocess.run(
            ["chattr", "+T", str(tmp_path)], capture_output=True, check=False
        ).returncode
        assert ("T" in _flags(folder)) == (told == 0)
    assert kept.exists()


def test_a_file_system_that_knows_no_such_thing_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SET_FLAGS", 0)
    spread(tmp_path / "attempts")
    assert (tmp_path / "attempts").is_dir()
    assert "T" not in _flags(tmp_path / "attempts")
