"""Fixtures: a scripted platform, and a workspace connected to it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # importlib mode does not

from scripted_platform import TOKEN, Platform


@pytest.fixture
def platform() -> Iterator[Platform]:
    """A platform of its own for the test."""
    made = Platform()
    yield made
    made.stop()


@pytest.fixture
def workspace(platform: Platform) -> Iterator[Any]:
    """A workspace connected to ``platform``."""
    from stellwerk import Workspace

    connected = Workspace(platform.url, TOKEN)
    yield connected
    connected.client.close()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's own platform."""
    for name in ("STELLWERK_URL", "STELLWERK_TOKEN", "STELLWERK_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.setenv("STELLWERK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
