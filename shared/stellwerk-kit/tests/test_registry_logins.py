"""Logins of registries: each only for its own, none of them shown."""

from pathlib import Path

import pytest

from stellwerk_kit.registry_logins import RegistryLogins

LOGIN = {"username": "u", "password": "hidden"}


def test_one_login_is_the_registrys_own(tmp_path: Path) -> None:
    file = tmp_path / "login.json"
    file.write_text('{"username": "u", "password": "hidden"}')
    logins = RegistryLogins.read(file, "host:5000")
    assert logins.of("host:5000/a/b@sha256:1") == LOGIN
    assert logins.of("host/a") is None
    assert logins.of("python:3.11") is None
    assert "hidden" not in repr(logins)
    assert RegistryLogins.read(file, None).of("host:5000/a") is None
    assert RegistryLogins.read(None, "host:5000").of("host:5000/a") is None


def test_several(tmp_path: Path) -> None:
    file = tmp_path / "login.json"
    file.write_text('{"a:1": {"username": "u", "password": "hidden"}}')
    logins = RegistryLogins.read(file, "b:2")
    assert logins.of("a:1/x") == LOGIN
    assert logins.of("b:2/x") is None


@pytest.mark.parametrize("text", ["hidden", "[]", '{"a": "hidden"}', '{"username": "hidden"}'])
def test_a_broken_file_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "login.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"login\.json: write") as caught:
        RegistryLogins.read(file, "host")
    assert "hidden" not in str(caught.value)
