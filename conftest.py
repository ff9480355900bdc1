"""Fixtures shared by all tests: real servers from the kit."""

import pytest

pytest_plugins = ["stellwerk_kit.testing.fixtures"]
SERVERS = {"nats_server", "s3_server", "stack"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever starts a server of its own is left out of ``make check``."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("servers")
