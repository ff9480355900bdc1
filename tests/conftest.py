"""One embedded stack for all end-to-end tests; the chaos suite has its own."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The platform with production timers; ``channel`` in its home is a conda channel."""
    home = tmp_path_factory.mktemp("stack")
    stack = Stack(
        home,
        STELLWERK_BUILD_CHANNELS=json.dumps({"ours": f"file://{home}/channel"}),
        # The channel's Python is this one by links.
        STELLWERK_SANDBOX_READABLE=json.dumps([sys.base_prefix]),
    )
    stack.up()
    yield stack
    stack.down()


@pytest.fixture
def script_folder(tmp_path: Path) -> Path:
    """An empty source folder."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder
