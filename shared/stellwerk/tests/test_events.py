"""Events: one class, one type, one subject, one owner; stored samples stay readable for ever."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stellwerk.errors import ProtocolError
from stellwerk.events import (
    REGISTRY,
    Envelope,
    RunCancelRequested,
    RunSubmitted,
    UnknownEventTypeError,
    decode,
)

GOLDEN = Path(__file__).parent / "golden"
TIME = datetime(2026, 1, 1, tzinfo=UTC)


def _kept(sample: object, again: object) -> object:
    """``again`` without the fields, at any depth, that later releases added."""
    if isinstance(sample, dict) and isinstance(again, dict):
        return {key: _kept(value, again.get(key)) for key, value in sample.items()}
    return again


@pytest.mark.parametrize("type_name", sorted(REGISTRY))
def test_golden_sample_is_still_read_and_written_the_same(type_name: str) -> None:
    """A sample was published once: readers of today must understand it, and may not lose a field.

    For a new event add a sample; never edit one.
    """
    sample = json.loads((GOLDEN / f"{type_name}.json").read_text())
    envelope = decode(sample["subject"], sample["headers"], json.dumps(sample["body"]).encode())
    assert type(envelope.event) is REGISTRY[type_name]
    again = json.loads(envelope.event.data())
    assert _kept(sample["body"], again) == sample["body"]
    assert envelope.headers() == sample["headers"]


def test_no_golden_sample_without_an_event() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(REGISTRY)


def test_each_aggregate_has_one_owner() -> None:
    owners: dict[str, set[str]] = {}
    for event in REGISTRY.values():
        owners.setdefault(event.aggregate, set()).add(event.owner)
    assert all(len(names) == 1 for names in owners.values()), owners


def cancel(run_id: str = "run1") -> Envelope:
    return Envelope.wrap(RunCancelRequested(run_id=run_id), source="/t", time=TIME)


def test_same_fact_has_the_same_id_and_msg_id() -> None:
    assert cancel().headers() == cancel().headers()
    assert (
        cancel().headers()["Nats-Msg-Id"]
        == cancel().headers()["ce-id"]
        == "submission/run1/cancel-requested"
    )


def test_headers_are_percent_encoded_and_come_back() -> None:
    envelope = Envelope.wrap(RunCancelRequested(run_id="r"), source="/a b/é\r\nX: 1", time=TIME)
    headers = envelope.headers()
    assert "\r" not in headers["ce-source"]
    back = decode("sw.evt.submission.r.cancel-requested", headers, envelope.event.data())
    assert back.source == "/a b/é\r\nX: 1"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"subject": "sw.evt.submission.other.cancel-requested"}, "event.subject_mismatch"),
        ({"body": b"{"}, "event.malformed"),
        ({"body": b'{"run_id": 5}'}, "event.malformed"),
        ({"body": b'{"run_id": "' + b"x" * 300_000 + b'"}'}, "event.too_large"),
        ({"headers": None}, "event.headers"),
        ({"headers": {"ce-type": "stellwerk.submission.cancel-requested.v1"}}, "event.headers"),
        ({"extra": {"ce-time": "yesterday"}}, "event.headers"),
        ({"extra": {"ce-sequence": "-1"}}, "event.headers"),
        ({"extra": {"ce-sequence": str(2**70)}}, "event.headers"),
    ],
)
def test_hostile_messages_are_refused_with_a_code(change: dict[str, object], code: str) -> None:
    good = cancel()
    headers = {**good.headers(), **change.get("extra", {})}  # type: ignore[dict-item]
    with pytest.raises(ProtocolError) as caught:
        decode(
            str(change.get("subject", good.event.subject())),
            change.get("headers", headers),  # type: ignore[arg-type]
            change.get("body", good.event.data()),  # type: ignore[arg-type]
        )
    assert caught.value.code == code


def test_unknown_type_is_told_apart() -> None:
    good = cancel()
    headers = {**good.headers(), "ce-type": "stellwerk.run.dreamed.v9"}
    with pytest.raises(UnknownEventTypeError):
        decode(good.event.subject(), headers, good.event.data())


@pytest.mark.parametrize("run_id", ["", "UPPER", "a.b", "*", ">", "a b", "x" * 41, "-a", "ü"])
def test_ids_that_are_no_tokens_are_refused(run_id: str) -> None:
    spec = {"source": {"inline": {"a.py": ""}}, "script": "a.py"}
    with pytest.raises(ValueError, match="run_id"):
        RunSubmitted.model_validate({"run_id": run_id, "experiment": "e", "spec": spec})
