"""Fixtures shared by all tests: real servers from the kit."""

import pytest

pytest_plugins = ["stellwerk_kit.testing.fixtures"]
SERVERS = {"nats_server", "s3_server", "stack"}


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
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("servers")
