"""The broker with its real configuration: each user can do its part and nothing else."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from stellwerk_embedded import credentials, nats_config, ports
from stellwerk_embedded.layout import SERVICES, Layout
from stellwerk_embedded.permissions import consumers_of, of_service
from stellwerk_embedded.probes import is_ready
from stellwerk_embedded.processes import find_binary
from stellwerk_kit import topology
from stellwerk_kit.testing import wait_until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[Layout, int]]:
    layout, port_map = Layout(tmp_path), ports.assign(0)
    layout.create()
    credentials.ensure(layout)
    config = nats_config.write(layout, port_map)
    process = subprocess.Popen(
        [str(find_binary("nats-server", "X")), "-c", config], stderr=subprocess.DEVNULL
    )
    yield layout, port_map["nats"]
    process.terminate()
    process.wait()


class Users:
    """Connections by user name."""

    def __init__(self, layout: Layout, port: int) -> None:
        self.layout, self.port = layout, port
        self.open: list[Client] = []
        self.errors: list[str] = []

    async def connect(self, user: str) -> Client:
        async def on_error(error: Exception) -> None:
            self.errors.append(str(error).lower())

        await wait_until(lambda: is_ready(f"tcp:{self.port}"))
        client = await nats.connect(
            f"nats://127.0.0.1:{self.port}",
            user=user,
            password=credentials.nats_password(self.layout, user),
            inbox_prefix=f"_INBOX_{user}".encode(),
            error_cb=on_error,
        )
        self.open.append(client)
        return client


@pytest_asyncio.fixture
async def users(broker: tuple[Layout, int]) -> AsyncIterator[Users]:
    users = Users(*broker)
    admin = await users.connect("admin")
    await topology.apply(admin.jetstream())
    yield users
    for client in users.open:
        await client.close()


async def refused(users: Users, client: Client, subject: str) -> bool:
    before = len(users.errors)
    await client.publish(subject, b"{}")
    await client.flush()
    await wait_until(lambda: len(users.errors) > before, 2)
    return "permissions violation" in users.errors[-1]


async def test_client_may_submit_and_read_but_not_forge(users: Users) -> None:
    client = await users.connect("client")
    stored = await client.jetstream().publish("sw.evt.submission.r1.submitted", b"{}")
    assert stored.stream == "SW_EVENTS"
    events = await client.jetstream().subscribe("sw.evt.submission.r1.>", ordered_consumer=True)
    assert (await events.next_msg(timeout=5)).data == b"{}"
    for subject in (
        "sw.evt.run.r1.completed",
        "sw.evt.attempt.r1.exited.local",
        "sw.metric.r1.1",
        "sw.log.r1.1.std",
        "sw.rpc.scheduler.compute-delete",
        "$JS.API.STREAM.PURGE.SW_EVENTS",
        "$JS.API.STREAM.DELETE.SW_EVENTS",
        "$JS.API.CONSUMER.DELETE.SW_EVENTS.scheduler-facts",
        "$JS.API.CONSUMER.MSG.NEXT.SW_EVENTS.scheduler-facts",
        "$JS.API.CONSUMER.CREATE.SW_EVENTS.scheduler-facts",
    ):
        assert await refused(users, client, subject), subject


@pytest.mark.parametrize("service", SERVICES)
async def test_service_uses_its_own_consumers_and_aggregates_only(
    users: Users, service: str
) -> None:
    admin = users.open[0]
    for spec in consumers_of("gpu-executor", "local"):
        await admin.jetstream().add_consumer(spec.stream, spec.config())
    client = await users.connect(service)
    for spec in consumers_of(service, "local"):
        pull = await client.jetstream().pull_subscribe_bind(spec.name, stream=spec.stream)
        with pytest.raises(TimeoutError):
            await pull.fetch(1, timeout=0.2)
    assert not users.errors, users.errors
    foreign = (
        "sw.evt.run.r1.completed" if service != "scheduler" else "sw.evt.submission.r1.submitted"
    )
    assert await refused(users, client, foreign)
    other = "dataset-runs" if service != "dataset" else "scheduler-facts"
    assert await refused(users, client, f"$JS.API.CONSUMER.MSG.NEXT.SW_EVENTS.{other}")


@pytest.mark.parametrize(
    "login", [{"user": "admin", "password": "wrong"}, {}], ids=["wrong", "none"]
)
async def test_wrong_or_missing_password_is_refused(users: Users, login: dict[str, str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", users.port)
    await reader.readline()
    words = {"verbose": False, "pedantic": False} | {
        k.replace("password", "pass"): v for k, v in login.items()
    }
    writer.write(f"CONNECT {json.dumps(words)}\r\nPING\r\n".encode())
    assert b"Authorization Violation" in await reader.readline()
    writer.close()
    await writer.wait_closed()


def test_every_aggregate_is_published_by_exactly_one_service() -> None:
    granted: dict[str, str] = {}
    for service in SERVICES:
        for subject in of_service(service).publish:
            if subject.startswith("sw.evt."):
                assert subject not in granted, f"{subject}: {granted[subject]} and {service}"
                granted[subject] = service


def test_secrets_are_private_and_made_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    layout.create()
    credentials.ensure(layout)
    first = {path.name: path.read_text() for path in layout.secrets.iterdir()}
    credentials.ensure(layout)
    assert first == {path.name: path.read_text() for path in layout.secrets.iterdir()}
    assert all(
        path.stat().st_mode & 0o077 == 0 for path in [layout.secrets, *layout.secrets.iterdir()]
    )
    token = json.loads(first["token.json"])["token"]
    assert token not in first["tokens.json"]
