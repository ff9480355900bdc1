"""Names, sizes, keys files and sealing, without a broker."""

import json
import stat
from pathlib import Path

import pytest

from stellwerk.errors import ConflictError, UserError
from stellwerk_keyvault import keys
from stellwerk_keyvault.cipher import Cipher
from stellwerk_keyvault.domain import Sealed, check_value, folded


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    keys.ensure(path)
    return path


@pytest.mark.parametrize("name", ["", "a b", "a_b", "a.b", "ä", "x" * 128, "a/b", "a\n"])
def test_a_name_that_cannot_be_kept_is_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        folded(name)
    assert (caught.value.code, caught.value.field) == ("name.charset", "name")


def test_the_limit_counts_bytes_and_the_error_repeats_nothing() -> None:
    check_value("x" * 25_600)
    with pytest.raises(UserError, match="25601 bytes") as caught:
        check_value("ä" * 12_800 + "x")
    assert "ä" not in caught.value.message


def test_one_value_sealed_twice_differs_and_opens_only_under_its_name(keys_file: Path) -> None:
    cipher = Cipher(keys_file)
    first, second = cipher.seal("a", "hunter2"), cipher.seal("a", "hunter2")
    assert first.data != second.data
    assert b"hunter2" not in first.data
    assert cipher.open("a", first) == "hunter2"
    for name, sealed in (
        ("b", first),
        ("a", Sealed(first.key_id, first.data[:-1] + bytes([first.data[-1] ^ 1]))),
        ("a", Sealed("gone", first.data)),
        ("a", Sealed(first.key_id, b"")),
    ):
        with pytest.raises(ConflictError) as caught:
            cipher.open(name, sealed)
        assert caught.value.code == "secret.unreadable"


def test_the_keys_file_is_private_and_a_new_key_comes_first(keys_file: Path) -> None:
    (old,) = keys.load(keys_file)
    new = keys.add(keys_file)
    assert [each.id for each in keys.load(keys_file)] == [new.id, old.id]
    assert stat.S_IMODE(keys_file.stat().st_mode) == 0o600
    keys.ensure(keys_file)
    assert len(keys.load(keys_file)) == 2
    assert "key" not in repr(new).removeprefix("MasterKey")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '[{"id": "a"}]',
        '[{"id": "a", "key": "AAAA"}]',
        '[{"id": "a", "key": "?"}]',
        "[1]",
    ],
)
def test_a_bad_keys_file_is_refused_in_words(keys_file: Path, content: str) -> None:
    keys_file.write_text(content)
    with pytest.raises(ValueError, match=r"keys\.json"):
        Cipher(keys_file)


def test_a_keys_file_that_others_can_read_is_refused(keys_file: Path) -> None:
    keys_file.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        Cipher(keys_file)


def test_a_changed_file_is_taken_over_and_a_bad_one_is_not(keys_file: Path) -> None:
    cipher = Cipher(keys_file)
    before = cipher.key_id
    new = keys.add(keys_file)
    cipher.refresh()
    assert (cipher.key_id, cipher.older_ids) == (new.id, (before,))
    keys_file.write_text("nonsense")
    cipher.refresh()
    assert cipher.key_id == new.id
    assert json.dumps(cipher.seal("a", "b").key_id)
