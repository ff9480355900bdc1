"""Packages that the user's own Python loads from other folders: found, without running anything."""

import os
from pathlib import Path

from stellwerk_gpu_executor.site_folders import site_folders

FINDER = """
from __future__ import annotations
import sys
MAPPING: dict[str, str] = {MAPPING}
NAMESPACES: dict[str, list[str]] = {}
raise SystemExit("it was executed")
"""


def installation(folder: Path) -> tuple[Path, Path]:
    site = folder / "venv/lib/python3.11/site-packages"
    site.mkdir(parents=True)
    (folder / "venv/bin").mkdir()
    return folder / "venv/bin/python", site


def test_lines_and_mappings_are_folders_that_are_there(tmp_path: Path) -> None:
    python, site = installation(tmp_path)
    for name in ("lines", "flat/package", "src"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "src/single.py").touch()
    lines = ["# words", "", f"{tmp_path}/lines", "import os; os._exit(1)", f"{tmp_path}/gone"]
    (site / "a.pth").write_text("\n".join([*lines, "/", "relative", str(site / "inside")]))
    mapping = {"package": f"{tmp_path}/flat/package", "single": f"{tmp_path}/src/single.py"}
    finder = FINDER.replace("{MAPPING}", repr(mapping))
    (site / "__editable___both_1_0_finder.py").write_text(finder)
    (site / "__editable___broken_finder.py").write_text("MAPPING: dict = {")
    expected = [tmp_path / each for each in ("lines", "flat/package", "src/single.py")]
    assert list(site_folders(python)) == expected


def test_what_is_installed_later_is_found(tmp_path: Path) -> None:
    python, site = installation(tmp_path)
    assert site_folders(python) == ()
    os.utime(site, ns=(1, 1))
    assert site_folders(python) == ()
    (site / "a.pth").write_text(str(tmp_path))
    assert site_folders(python) == (tmp_path,)


def test_no_installation_no_folders(tmp_path: Path) -> None:
    assert site_folders(tmp_path / "bin/python") == ()


def test_a_line_more_and_a_folder_made_later_are_found(tmp_path: Path) -> None:
    python, site = installation(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (site / "a.pth").write_text(f"{first}\n")
    assert site_folders(python) == (first,)
    with (site / "a.pth").open("a") as lines:  # the time of its folder stays
        lines.write(f"{second}\n")
    assert site_folders(python) == (first,)
    second.mkdir()
    assert site_folders(python) == (first, second)
