"""The broker with its real configuration: each user can do its part and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator

import nats
import pytest
import pytest_asyncio
from embedded_setup import Prepared
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from stellwerk_embedded import credentials
from stellwerk_embedded.layout import SERVICES
from stellwerk_embedded.permissions import consumers_of
from stellwerk_kit import topology
from stellwerk_kit.testing import wait_until

pytestmark = pytest.mark.servers


class Users:
    """Connections by user name."""

    def __init__(self, prepared: Prepared) -> None:
        self.layout, self.port = prepared.layout, prepared.ports["nats"]
        self.open: list[Client] = []
        self.errors: list[str] = []

    async def connect(self, user: str, prefix: str | None = None) -> Client:
        async def on_error(error: Exception) -> None:
            self.errors.append(str(error).lower())

        client = await nats.connect(
            f"nats://127.0.0.1:{self.port}",
            user=user,
            password=credentials.nats_password(self.layout, user),
            inbox_prefix=(prefix or f"_INBOX_{user}").encode(),
            error_cb=on_error,
        )
        self.open.append(client)
        return client

    async def refused(self, client: Client, subject: str) -> bool:
        """Whether the broker refuses to take a message on ``subject``; it answers only then."""
        before = len(self.errors)
        await client.publish(subject, b"{}")
        await client.flush()
        return await self._violation(before)

    async def deaf(self, client: Client, subject: str) -> bool:
        """Whether the broker refuses to deliver ``subject``."""
        before = len(self.errors)
        await client.subscribe(subject)
        await client.flush()
        return await self._violation(before)

    async def _violation(self, before: int) -> bool:
        await wait_until(lambda: len(self.errors) > before, 5)
        return all("permissions violation" in error for error in self.errors[before:])


@pytest_asyncio.fixture
async def users(broker: Prepared) -> AsyncIterator[Users]:
    users = Users(broker)
    admin = await users.connect("admin")
    await topology.apply(admin.jetstream())
    yield users
    for client in users.open:
        await client.close()


@pytest.mark.parametrize("prefix", ["_INBOX", "_INBOX_client"])
async def test_client_submits_and_reads(users: Users, prefix: str) -> None:
    client = await users.connect("client", prefix)
    live = await client.subscribe("sw.evt.submission.r1.>")
    stored = await client.jetstream().publish("sw.evt.submission.r1.submitted", b"{}")
    assert stored.stream == "SW_EVENTS"
    await client.jetstream().publish("sw.evt.submission.r1.cancel-requested", b"{}")
    assert (await live.next_msg(timeout=5)).data == b"{}"
    events = await client.jetstream().subscribe("sw.evt.submission.r1.>", ordered_consumer=True)
    assert (await events.next_msg(timeout=5)).subject == "sw.evt.submission.r1.submitted"
    await events.unsubscribe()
    refused = await client.subscribe("sw.dead.scheduler-facts")
    await heard(client)
    await users.open[0].publish("sw.dead.scheduler-facts", b"", headers={"Sw-Reason": "why"})
    assert (await refused.next_msg(timeout=5)).headers == {"Sw-Reason": "why"}
    last = await client.jetstream().get_last_msg("SW_EVENTS", "sw.evt.submission.r1.submitted")
    assert last.seq == stored.seq
    assert not users.errors, users.errors


async def test_client_cannot_forge_ask_or_touch_the_platforms_consumers(users: Users) -> None:
    client = await users.connect("client")
    for subject in (
        "sw.evt.run.r1.completed",
        "sw.evt.submission.r1.something",
        "sw.evt.attempt.r1.exited.local",
        "sw.metric.r1.1",
        "sw.log.r1.1.std",
        "sw.dead.scheduler-facts",
        "sw.rpc.scheduler.compute-delete",
        "$JS.API.STREAM.PURGE.SW_EVENTS",
        "$JS.API.STREAM.DELETE.SW_EVENTS",
        "$JS.API.STREAM.CREATE.OTHER",
        "$JS.API.STREAM.MSG.GET.SW_DEAD",
        "$JS.API.CONSUMER.DELETE.SW_EVENTS.scheduler-facts",
        "$JS.API.CONSUMER.MSG.NEXT.SW_EVENTS.scheduler-facts",
        "$JS.API.CONSUMER.MSG.NEXT.SW_EVENTS.executor-local",
        "$JS.API.CONSUMER.CREATE.SW_EVENTS.scheduler-facts",
        "$JS.API.CONSUMER.CREATE.SW_EVENTS.scheduler-facts.sw.evt.>",
        "$JS.API.CONSUMER.DURABLE.CREATE.SW_EVENTS.scheduler-facts",
        "$JS.ACK.SW_EVENTS.scheduler-facts.1.1.1.1.0",
    ):
        assert await users.refused(client, subject), subject
    for subject in ("sw.rpc.>", "sw.metric.>", "_INBOX_gateway.>", ">", "$JS.API.>"):
        assert await users.deaf(client, subject), subject


async def test_nameless_way_to_make_a_consumer_makes_no_durable_one(users: Users) -> None:
    """That way has no name in its subject: only the broker can refuse one in its body."""
    admin, client = users.open[0].jetstream(), await users.connect("client")
    before = (await admin.consumer_info("SW_EVENTS", "scheduler-facts")).config
    config = {"durable_name": "scheduler-facts", "ack_policy": "explicit"}
    request = json.dumps({"stream_name": "SW_EVENTS", "config": config}).encode()
    answer = await client.request("$JS.API.CONSUMER.CREATE.SW_EVENTS", request, timeout=5)
    assert "error" in json.loads(answer.data)
    assert (await admin.consumer_info("SW_EVENTS", "scheduler-facts")).config == before


@pytest.mark.parametrize("service", SERVICES)
async def test_service_uses_its_own_consumers_and_facts_only(users: Users, service: str) -> None:
    admin = users.open[0]
    for spec in consumers_of("gpu-executor"):
        await admin.jetstream().add_consumer(spec.stream, spec.config())
    client = await users.connect(service)
    for spec in consumers_of(service):
        await client.jetstream().consumer_info(spec.stream, spec.name)
        pull = await client.jetstream().pull_subscribe_bind(spec.name, stream=spec.stream)
        with pytest.raises(TimeoutError):
            await pull.fetch(1, timeout=0.2)
    assert not users.errors, users.errors
    foreign = "sw.evt.submission.r1.submitted" if service == "scheduler" else "sw.evt.run.r1.failed"
    assert await users.refused(client, foreign)
    other = "scheduler-facts" if service == "dataset" else "dataset-runs"
    assert await users.refused(client, f"$JS.API.CONSUMER.MSG.NEXT.SW_EVENTS.{other}")
    neighbour = "history" if service == "dataset" else "dataset"
    assert await users.deaf(client, f"sw.rpc.{neighbour}.>")
    assert await users.deaf(client, f"_INBOX_{neighbour}.>")


async def test_consumer_delivers_and_takes_acknowledgements(users: Users) -> None:
    client, service = await users.connect("client"), await users.connect("dataset")
    await users.open[0].jetstream().publish("sw.evt.run.r1.preparing", b"{}")
    pull = await service.jetstream().pull_subscribe_bind("dataset-runs", stream="SW_EVENTS")
    (message,) = await pull.fetch(1, timeout=5)
    await message.in_progress()
    await message.ack_sync(timeout=5)
    info = await service.jetstream().consumer_info("SW_EVENTS", "dataset-runs")
    assert (info.num_ack_pending, info.num_pending) == (0, 0)
    assert client.is_connected
    assert not users.errors, users.errors


async def test_executor_makes_its_own_consumer_and_speaks_for_itself_only(users: Users) -> None:
    executor = await users.connect("gpu-executor")
    (spec,) = consumers_of("gpu-executor")
    await executor.jetstream().add_consumer(spec.stream, spec.config())
    await executor.jetstream().publish("sw.evt.attempt.r1.started.local", b"{}")
    await executor.jetstream().publish("sw.log.r1.1.std", b"line")
    await executor.jetstream().publish("sw.metric.r1.1", b"{}")
    assert not users.errors, users.errors
    assert await users.refused(executor, "sw.evt.attempt.r1.started.other")
    assert await users.refused(executor, "sw.evt.node.other.joined")
    config = ConsumerConfig(durable_name="mine")
    with pytest.raises(TimeoutError):
        await executor.jetstream(timeout=0.3).add_consumer("SW_EVENTS", config)


async def heard(client: Client) -> None:
    """The broker knows the client's subscriptions: a first ping may overtake them, no second."""
    await client.flush()
    await client.flush()


async def test_requests_reach_their_owner_and_are_answered(users: Users) -> None:
    gateway, scheduler = await users.connect("gateway"), await users.connect("scheduler")
    executor = await users.connect("gpu-executor")

    async def answer(message: Msg) -> None:
        await message.respond(b"yes")

    await scheduler.subscribe("sw.rpc.scheduler.*", queue="scheduler", cb=answer)
    await heard(scheduler)
    asked = await gateway.request("sw.rpc.scheduler.compute-list", b"{}", timeout=5)
    assert asked.data == b"yes"
    renewed = await executor.request("sw.rpc.scheduler.lease-renew", b"{}", timeout=5)
    assert renewed.data == b"yes"
    assert not users.errors, users.errors
    assert await users.refused(executor, "sw.rpc.scheduler.compute-delete")
    assert await users.refused(gateway, "sw.rpc.scheduler.lease-renew")
    assert await users.refused(scheduler, f"{gateway._inbox_prefix.decode()}.forged")


async def test_a_secret_passes_between_gateway_and_keyvault_only(users: Users) -> None:
    gateway, vault = await users.connect("gateway"), await users.connect("keyvault")

    async def answer(message: Msg) -> None:
        await message.respond(b"hush")

    await vault.subscribe("sw.rpc.keyvault.*", queue="keyvault", cb=answer)
    await heard(vault)
    asked = await gateway.request("sw.rpc.keyvault.secret-get", b"{}", timeout=5)
    assert asked.data == b"hush"
    assert not users.errors, users.errors
    for subject in ("sw.evt.run.r1.failed", "sw.rpc.history.run-get", "sw.log.r1.1.std"):
        assert await users.refused(vault, subject), subject
    for other in ("history", "gpu-executor", "client"):
        client = await users.connect(other)
        assert await users.refused(client, "sw.rpc.keyvault.secret-get")
        assert await users.deaf(client, "sw.rpc.keyvault.>")
        assert await users.deaf(client, "_INBOX_gateway.>")


async def test_history_reads_its_streams_directly(users: Users) -> None:
    await users.open[0].jetstream().publish("sw.evt.run.r1.preparing", b"{}")
    history = (await users.connect("history")).jetstream()
    assert (await history.stream_info("SW_EVENTS")).state.last_seq == 1
    found = await history.get_msg("SW_EVENTS", 1, "sw.evt.>", direct=True, next=True)
    assert found.subject == "sw.evt.run.r1.preparing"


@pytest.mark.parametrize("login", [{"user": "admin", "pass": "wrong"}, {}], ids=["wrong", "none"])
async def test_wrong_or_missing_password_is_refused(users: Users, login: dict[str, str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", users.port)
    await reader.readline()
    words = {"verbose": False, "pedantic": False} | login
    writer.write(f"CONNECT {json.dumps(words)}\r\nPING\r\n".encode())
    assert b"Authorization Violation" in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_message_is_on_disk_when_it_is_acknowledged(users: Users) -> None:
    """The running broker says so itself; doctor reads the same page."""
    from stellwerk_embedded.checks_parts import _broker
    from stellwerk_embedded.http_get import request
    from stellwerk_embedded.ports import remembered

    port = remembered(users.layout.ports_file)["nats-monitor"]
    told = json.loads((await request(port, "/varz"))[1])
    assert _broker(told).state == "ok"
    told["jetstream"]["config"].pop("sync_always")
    assert _broker(told).state == "problem"
    told["jetstream"]["config"]["sync_always"] = True
    assert _broker(told | {"version": "2.14.2"}).state == "problem"
    await wait_until(lambda: users.open[0].is_connected)
