"""The short way in and out, on a real broker: whole and cut messages, headers, answers, outages."""

import asyncio

import pytest
from nats.errors import NoRespondersError, OutboundBufferLimitError

from stellwerk_kit.bus import Bus
from stellwerk_kit.testing import wait_until
from stellwerk_kit.testing.servers import NatsServer
from stellwerk_kit.wire import Message, format_head, parse_head


async def test_messages_of_any_size_come_whole_and_in_order(bus: Bus) -> None:
    got: list[Message] = []
    await bus.client.listen("t.*", got.append)
    await bus.flush()
    sizes = [0, 1, 10, 40_000, 3, 300_000, 65_536, 2, *range(50)]
    for number, size in enumerate(sizes):
        headers = {"Number": str(number)} if number % 2 else None
        bus.client.send(f"t.{number}", b"\r\nMSG" * (size // 5), headers, reply=f"r.{number}")
    await wait_until(lambda: len(got) == len(sizes))
    assert [message.subject for message in got] == [f"t.{n}" for n in range(len(sizes))]
    assert [len(message.data) for message in got] == [size // 5 * 5 for size in sizes]
    assert [message.reply for message in got] == [f"r.{n}" for n in range(len(sizes))]
    assert [message.headers.get("Number") for message in got[:3]] == [None, "1", None]


async def test_the_librarys_own_subscriptions_go_on_beside_it(bus: Bus) -> None:
    order: list[str] = []
    theirs = await bus.client.subscribe("mixed.b")
    await bus.client.listen("mixed.a", lambda message: order.append(message.data.decode()))
    await bus.flush()
    for number in range(20):
        bus.client.send(f"mixed.{'ab'[number % 2]}", str(number).encode())
    taken = [(await theirs.next_msg(5)).data.decode() for _ in range(10)]
    await wait_until(lambda: len(order) == 10)
    assert order == [str(number) for number in range(0, 20, 2)]
    assert taken == [str(number) for number in range(1, 20, 2)]


async def test_an_answer_finds_its_question(bus: Bus) -> None:
    await bus.client.listen("double", lambda message: message.respond(message.data * 2, {"A": "b"}))
    await bus.flush()
    answers = await asyncio.gather(
        *(bus.client.ask("double", str(n).encode(), None, 5.0) for n in range(20))
    )
    assert [each.data.decode() for each in answers] == [str(n) * 2 for n in range(20)]
    assert answers[0].headers == {"A": "b"}
    with pytest.raises(NoRespondersError):
        await bus.client.ask("nobody", b"", None, 5.0)
    await bus.client.listen("mute", lambda message: None)
    await bus.flush()
    with pytest.raises(TimeoutError):
        await bus.client.ask("mute", b"", None, 0.05)


async def test_a_receiver_that_fails_stops_nothing(bus: Bus) -> None:
    got: list[bytes] = []

    def receive(message: Message) -> None:
        if message.data == b"bad":
            raise ValueError("no")
        got.append(message.data)

    await bus.client.listen("t", receive)
    await bus.flush()
    for data in (b"1", b"bad", b"2"):
        bus.client.send("t", data)
    await wait_until(lambda: got == [b"1", b"2"])


async def test_while_the_broker_is_away_nothing_is_kept_for_later(
    bus: Bus, nats_server: NatsServer
) -> None:
    got: list[bytes] = []
    await bus.client.listen("t", lambda message: got.append(message.data))
    nats_server.kill()
    await wait_until(lambda: not bus.connected)
    with pytest.raises(OutboundBufferLimitError):
        bus.client.send("t", b"lost")
    nats_server.start()
    await wait_until(lambda: bus.connected)
    await bus.flush()
    bus.client.send("t", b"back")
    await wait_until(lambda: got == [b"back"])


def test_a_line_break_in_a_value_ends_nothing() -> None:
    head = format_head({"A": "b\r\nNats-Msg-Id: forged", "C": "d\ne"})
    assert parse_head(head) == {"A": "b Nats-Msg-Id: forged", "C": "d e"}
    assert parse_head(b"NATS/1.0 404 No Messages\r\n\r\n") == {
        "Status": "404",
        "Description": "No Messages",
    }
