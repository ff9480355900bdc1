"""A real gateway on a real broker; `gateway_setup.py` is shared by the tests of this folder."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest_asyncio

from stellwerk_gateway.app import build
from stellwerk_gateway.settings import Settings
from stellwerk_kit.bus import Bus
from stellwerk_kit.testing import free_port
from stellwerk_kit.testing.fixtures import RuntimeFactory

sys.path.append(str(Path(__file__).parent))  # importlib mode does not
from gateway_setup import TOKEN, Gateway, GatewayFactory, Services, write_tokens


@pytest_asyncio.fixture
async def services(bus: Bus) -> AsyncIterator[Services]:
    scripted = Services(bus)
    yield scripted
    await scripted.tasks.close()


@pytest_asyncio.fixture
async def gateway_factory(
    runtime_factory: RuntimeFactory, tmp_path: Path
) -> AsyncIterator[GatewayFactory]:
    clients: list[httpx2.AsyncClient] = []

    async def start(**values: Any) -> Gateway:
        values.setdefault("tokens_file", write_tokens(tmp_path / "tokens.json"))
        port = free_port()
        runtime = await runtime_factory("gateway", Settings, build, api_port=port, **values)
        url = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        client = httpx2.AsyncClient(base_url=f"{url}/api/v1", headers=headers, timeout=20)
        stranger = httpx2.AsyncClient(base_url=url, timeout=20)
        clients.extend((client, stranger))
        return Gateway(runtime, port, client, stranger)

    yield start
    for client in clients:
        await client.aclose()


@pytest_asyncio.fixture
async def gateway(gateway_factory: GatewayFactory) -> Gateway:
    return await gateway_factory()
