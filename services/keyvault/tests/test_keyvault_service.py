"""The whole service on a real broker."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stellwerk.api import Page, SecretValueView, SecretView
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk_keyvault import keys, reseal
from stellwerk_keyvault.app import build
from stellwerk_keyvault.cipher import Cipher
from stellwerk_keyvault.settings import Settings
from stellwerk_kit.bus import Bus
from stellwerk_kit.testing import wait_until
from stellwerk_kit.testing.servers import NatsServer
from stellwerk_kit.topology import STREAMS

Start = Callable[..., Awaitable[Any]]
VALUE = "correct-horse-battery-staple"


class Vault:
    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def set(self, name: str, value: str) -> SecretView:
        return await self.call("secret-set", SecretView, name=name, value=value)

    async def get(self, name: str) -> str:
        return str((await self.call("secret-get", SecretValueView, name=name)).value)

    async def names(self, **body: Any) -> list[str]:
        page = await self.call("secret-list", Page[SecretView], **body)
        return [view.name for view in page.items]

    async def call(self, verb: str, reply: Any, **body: Any) -> Any:
        return await self.bus.call("keyvault", verb, body, reply)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    keys.ensure(path)
    return path


@pytest_asyncio.fixture
async def start(runtime_factory: Any, keys_file: Path, tmp_path: Path) -> Start:
    async def begin(**values: Any) -> Any:
        settings = {"data_dir": tmp_path / "vault", "master_keys_file": keys_file, **values}
        return await runtime_factory("keyvault", Settings, build, **settings)

    return begin


@pytest.fixture
def vault(bus: Bus) -> Vault:
    return Vault(bus)


async def test_secrets_are_set_read_listed_and_deleted(start: Start, vault: Vault) -> None:
    await start()
    first = await vault.set("Db-Password", VALUE)
    await vault.set("api-key", "")
    assert await vault.get("db-password") == VALUE
    again = await vault.set("DB-password", "other")
    assert (again.created_at, again.name) == (first.created_at, "DB-password")
    assert await vault.get("Db-Password") == "other"
    assert await vault.get("api-key") == ""
    page = await vault.call("secret-list", Page[SecretView], limit=1)
    assert [view.name for view in page.items] == ["api-key"]
    assert await vault.names(cursor=page.next_cursor) == ["DB-password"]
    await vault.call("secret-delete", SecretView, name="api-KEY")
    with pytest.raises(NotFoundError, match="did you mean 'DB-password'") as caught:
        await vault.get("db-pasword")
    assert caught.value.code == "secret.not_found"
    with pytest.raises(NotFoundError):
        await vault.call("secret-delete", SecretView, name="api-key")


@pytest.mark.store_file
async def test_no_file_and_no_stream_has_a_value(
    start: Start, vault: Vault, bus: Bus, nats_server: NatsServer, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    await start()
    await vault.set("a", VALUE)
    assert await vault.get("a") == VALUE
    with pytest.raises(UserError) as refused:
        await vault.set("not a name", VALUE)
    with pytest.raises(UserError) as too_long:
        await vault.set("a", VALUE * 2000)
    with pytest.raises(UserError) as unknown:
        await vault.call("secret-set", SecretView, name="a", value=VALUE, more=VALUE)
    with pytest.raises(UserError) as no_text:
        await vault.call("secret-set", SecretView, name="a", value=[VALUE])
    said = "".join(str(each.value) for each in (refused, too_long, unknown, no_text))
    said += "".join(capfd.readouterr())
    assert VALUE not in said
    assert too_long.value.code == "field.too_long"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name.startswith("keyvault.db") for path in files)
    assert any("jetstream" in str(path) for path in files)
    assert not [path for path in files if VALUE.encode() in path.read_bytes()]
    for stream in STREAMS:
        state = (await bus.js.stream_info(stream.name)).state
        assert state.messages == 0, stream.name


async def test_a_new_master_key_takes_over_and_the_old_one_can_go(
    start: Start, vault: Vault, keys_file: Path
) -> None:
    runtime = await start()
    for number in range(3):
        await vault.set(f"s{number}", f"value {number}")
    old = Cipher(keys_file).key_id
    new = keys.add(keys_file).id
    await runtime.stop()
    again = await start()  # seals anew when it begins
    store = reseal.SecretStore(again._databases[0][0], 10)

    async def key_ids() -> set[str]:
        return {(await store.get(f"s{number}"))[1].key_id for number in range(3)}

    async def moved() -> bool:
        return await key_ids() == {new}

    await wait_until(moved)
    kept = [entry for entry in json.loads(keys_file.read_text()) if entry["id"] != old]
    keys_file.write_text(json.dumps(kept))
    await again.stop()
    await start()
    assert [await vault.get(f"s{number}") for number in range(3)] == [
        "value 0",
        "value 1",
        "value 2",
    ]


async def test_a_value_whose_key_is_gone_says_so(
    start: Start, vault: Vault, keys_file: Path
) -> None:
    runtime = await start()
    await vault.set("a", VALUE)
    await runtime.stop()
    keys_file.unlink()
    keys.ensure(keys_file)
    await start()
    with pytest.raises(ConflictError, match="put the key back") as caught:
        await vault.get("a")
    assert caught.value.code == "secret.unreadable"
    await vault.set("a", "anew")
    assert await vault.get("a") == "anew"


async def test_one_secret_more_than_the_limit_is_refused(start: Start, vault: Vault) -> None:
    await start(max_secrets=1)
    await vault.set("a", "1")
    await vault.set("A", "2")
    with pytest.raises(ConflictError, match="limit"):
        await vault.set("b", "3")
