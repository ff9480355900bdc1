"""Fixtures shared by all tests: real servers from the kit."""

import os

import pytest

pytest_plugins = ["stellwerk_kit.testing.fixtures"]
SERVERS = {"nats_server", "s3_server", "stack", "postgres_server", "store_url"}


@pytest.fixture(autouse=True)
def errors_speak_v1_only_where_that_is_tested(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``azureml.core`` changes the class of errors in its whole process; most tests want none."""
    if not {"azureml-compat", "azureml"} & set(request.path.parts):
        monkeypatch.setattr("stellwerk.errors.spoken_as", None)
        monkeypatch.setattr("stellwerk_agent.errors.spoken_as", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever starts a server of its own is left out of ``make check``."""
    on_postgresql = os.environ.get("STELLWERK_TEST_DATABASE") == "postgresql"
    for item in items:
        if on_postgresql and item.get_closest_marker("store_file"):
            item.add_marker(pytest.mark.skip(reason="it is about the file of a store in SQLite"))
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("servers")
