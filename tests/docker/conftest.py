"""The engine of this folder's tests; ``make test-docker``. Not collected by ``make test``."""

import gc
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import servers_in_containers
from engine import engine as engine_for_tests
from foreign import empty_folder, nothing_left


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[None]:
    """A Docker engine; without one these tests fail, they are never skipped."""
    with (
        tempfile.TemporaryDirectory(prefix="sw-", ignore_cleanup_errors=True) as folder,
        engine_for_tests(Path(folder)),
    ):
        yield


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """What a test leaves open is told of that test, not of one that runs when it is collected."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """``host:port`` of a registry."""
    with servers_in_containers.registry() as host:
        yield host


@pytest.fixture
def folder() -> Iterator[Path]:
    """What a builder works in."""
    with empty_folder() as path:
        yield path


@pytest.fixture
def no_build_left(registry: str) -> Iterator[None]:
    """What is built is taken away, and nothing else of a build stays."""
    with nothing_left(registry):
        yield
