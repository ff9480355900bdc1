"""Which files an environment's image adds to another's."""

import os
from pathlib import Path

import pytest

from stellwerk_environment_build.image_layers import changed, with_folders


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    folder = tmp_path / "parent"
    write(folder, "lib/a.py", "a")
    write(folder, "lib/__pycache__/a.cpython-311.pyc", "compiled then")
    write(folder, "bin/tool", "#!python")
    (folder / "bin/python").symlink_to("/usr/bin/python3")
    return folder


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.fixture
def child(parent: Path) -> Path:
    """As the installer makes it: packages linked, the rest written anew."""
    folder = parent.with_name("child")
    (folder / "lib").mkdir(parents=True)
    os.link(parent / "lib/a.py", folder / "lib/a.py")
    write(folder, "lib/__pycache__/a.cpython-311.pyc", "compiled now")
    write(folder, "bin/tool", "#!python")
    (folder / "bin/python").symlink_to("/usr/bin/python3")
    return folder


def test_the_same_environment_adds_nothing(child: Path, parent: Path) -> None:
    assert changed(child, parent) == []


def test_what_is_new_is_added_with_what_was_compiled_from_it(child: Path, parent: Path) -> None:
    write(child, "lib/b.py", "b")
    write(child, "lib/__pycache__/b.cpython-311.pyc", "compiled")
    assert changed(child, parent) == ["lib/__pycache__/b.cpython-311.pyc", "lib/b.py"]


def test_what_was_changed_is_added_with_what_was_compiled_from_it(
    child: Path, parent: Path
) -> None:
    (child / "lib/a.py").unlink()
    write(child, "lib/a.py", "A")
    assert changed(child, parent) == ["lib/__pycache__/a.cpython-311.pyc", "lib/a.py"]


def test_a_link_or_mode_that_changed_is_added(child: Path, parent: Path) -> None:
    (child / "bin/python").unlink()
    (child / "bin/python").symlink_to("/usr/local/bin/python3")
    (child / "bin/tool").chmod(0o755)
    assert changed(child, parent) == ["bin/python", "bin/tool"]


def test_a_parent_with_more_is_no_parent(child: Path, parent: Path) -> None:
    write(parent, "lib/gone.py", "x")
    assert changed(child, parent) is None


def test_folders_come_before_what_is_in_them() -> None:
    assert with_folders(["a/b/c", "a/d"]) == ["a", "a/b", "a/b/c", "a/d"]
