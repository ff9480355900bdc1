"""The engine of this folder's tests; ``make test-docker``. Not collected by ``make test``."""

import gc
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from engine import engine as engine_for_tests


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
