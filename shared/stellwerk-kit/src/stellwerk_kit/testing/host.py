"""Tests that need something of the machine: where it is missing they say so, in CI they fail."""

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """End a test that this machine cannot run. ``what`` says what is missing and how to get it.

    Skipped with the reason in pytest's summary; with ``STELLWERK_TEST_HOST=complete`` (CI) failed.
    """
    text = f"{what}; as root: deploy/host-packages, then stellwerk doctor"
    if os.environ.get("STELLWERK_TEST_HOST") == "complete":
        pytest.fail(text)
    pytest.skip(text)
