"""One embedded stack for all end-to-end tests; the chaos suite has its own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The platform with production timers."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.up()
    yield stack
    stack.down()


@pytest.fixture
def script_folder(tmp_path: Path) -> Path:
    """An empty source folder."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder
