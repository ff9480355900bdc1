"""Secrets, as the authentication notebook uses them."""

import logging

import pytest

from azureml.core import Keyvault, Workspace
from azureml.core.keyvault import Keyvault as SecondPath
from azureml.exceptions import UserErrorException


def test_set_get_and_list(ws: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    vault = ws.get_default_keyvault()
    assert type(vault) is SecondPath is Keyvault
    vault.set_secret(name="secret-name", value="hush")
    vault.set_secrets({"second": "2"})
    assert vault.get_secret(name="secret-name") == "hush"
    assert {"name": "secret-name"} in vault.list_secrets()
    with caplog.at_level(logging.WARNING):
        assert vault.get_secrets(secrets=["second", "none"]) == {"second": "2", "none": None}
        assert vault.get_secret("none") is None
    assert "'none'" in caplog.text
    with pytest.raises(UserErrorException, match="1 to 127"):
        vault.set_secret("no_underscores", "x")
    for name in ("secret-name", "second"):
        vault.delete_secret(name)
    with pytest.raises(UserErrorException, match="no secret"):
        vault.delete_secret("second")
