"""A user's folder and session: the platform is found through STELLWERK_HOME, as after stellwerk up."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack

import stellwerk.workspace
from azureml.core import Workspace
from stellwerk.client import Client
from stellwerk.config import Connection


@pytest.fixture
def ws(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """``Workspace.from_config()`` in an empty folder; closes the connections of all workspaces."""
    clients = []

    def tracked(connection: Connection) -> Client:
        clients.append(Client(connection))
        return clients[-1]

    monkeypatch.setattr(stellwerk.workspace, "Client", tracked)
    monkeypatch.setenv("STELLWERK_HOME", str(stack.home))
    monkeypatch.chdir(tmp_path)
    yield Workspace.from_config()
    for client in clients:
        client.close()
