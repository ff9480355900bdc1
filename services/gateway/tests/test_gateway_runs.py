"""Submitting, showing and cancelling runs."""

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from gateway_setup import Gateway, GatewayFactory, Services

from stellwerk import ids
from stellwerk.api import QueueView, RunView
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.events import RunCancelRequested, RunSubmitted, decode
from stellwerk_gateway.replies import QueueReply
from stellwerk_kit.bus import Bus
from stellwerk_kit.testing import NatsServer

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def body(**spec: Any) -> dict[str, Any]:
    base = {"source": {"inline": {"a.py": "print(1)"}}, "script": "a.py"}
    return {"experiment": "first", "spec": {**base, **spec}}


def view(run_id: str, status: str = "Running") -> RunView:
    return RunView(
        run_id=run_id, experiment="first", status=status, target="local", submitted_at=NOW
    )


async def not_found(_: dict[str, Any]) -> RunView:
    raise NotFoundError("no such thing", code="x.not_found")


async def no_environment(asked: dict[str, Any]) -> RunView:
    raise NotFoundError(f"environment {asked['name']!r} is not there", code="env.not_found")


async def events(bus: Bus) -> list[Any]:
    """Everything on the event stream."""
    count = (await bus.js.stream_info("SW_EVENTS")).state.messages
    found = [await bus.js.get_msg("SW_EVENTS", seq=number + 1) for number in range(count)]
    return [decode(m.subject or "", m.headers, m.data or b"").event for m in found]


async def test_a_submission_is_on_the_bus_when_it_is_answered(gateway: Gateway, bus: Bus) -> None:
    answer = await gateway.client.post(
        "/runs", json=body(tags={"a": "b"}), headers={"Idempotency-Key": "k1"}
    )
    assert answer.status_code == 202
    run = RunView.model_validate(answer.json())
    assert run.run_id == ids.run_id("default", "k1")
    assert run.status == "NotStarted"
    assert run.submitted_by == "ann"
    assert answer.headers["location"] == f"/api/v1/runs/{run.run_id}"
    (event,) = await events(bus)
    assert isinstance(event, RunSubmitted)
    assert (event.run_id, event.experiment, event.spec) == (run.run_id, "first", run.spec)
    assert event.spec.tags == {"a": "b"}


async def test_without_a_key_every_submission_is_a_run(gateway: Gateway, bus: Bus) -> None:
    answers = [await gateway.client.post("/runs", json=body()) for _ in range(3)]
    assert len({answer.json()["run_id"] for answer in answers}) == 3
    assert len(await events(bus)) == 3


async def test_one_key_fifty_times_at_once_is_one_run(gateway: Gateway, bus: Bus) -> None:
    answers = await asyncio.gather(
        *(
            gateway.client.post("/runs", json=body(), headers={"Idempotency-Key": "same"})
            for _ in range(50)
        )
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({json.dumps(answer.json(), sort_keys=True) for answer in answers}) == 1
    assert {answer.json()["run_id"] for answer in answers} == {ids.run_id("default", "same")}
    assert len(await events(bus)) == 1


async def test_a_repeat_shows_the_run_as_it_is_now(gateway: Gateway, services: Services) -> None:
    async def run_get(request: dict[str, Any]) -> RunView:
        return view(request["run_id"], "Completed")

    await services.on("history", "run-get", run_get)
    headers = {"Idempotency-Key": "k"}
    assert (await gateway.client.post("/runs", json=body(), headers=headers)).status_code == 202
    again = await gateway.client.post("/runs", json=body(), headers=headers)
    assert (again.status_code, again.json()["status"]) == (202, "Completed")


async def test_a_key_for_another_run_is_409(gateway: Gateway, bus: Bus) -> None:
    headers = {"Idempotency-Key": "k"}
    await gateway.client.post("/runs", json=body(), headers=headers)
    answer = await gateway.client.post("/runs", json=body(priority=60), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency.conflict")
    assert len(await events(bus)) == 1


BAD_KEYS: list[str] = ["", "a b", "ü", "x" * 256, "tab\there"]


async def test_keys_are_printable_and_short(gateway: Gateway, subtests: pytest.Subtests) -> None:
    for key in BAD_KEYS:
        with subtests.test(key=key):
            headers = [(b"Idempotency-Key", key.encode())]
            answer = await gateway.client.post("/runs", json=body(), headers=headers)
            assert answer.status_code == 422
            assert answer.json()["field"] == "header.idempotency-key"


async def test_without_a_broker_it_is_503_and_the_same_key_works_later(
    gateway: Gateway, nats_server: NatsServer, bus: Bus
) -> None:
    headers = {"Idempotency-Key": "k"}
    nats_server.kill()
    answer = await gateway.client.post("/runs", json=body(target="gpu"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "bus.down")
    assert int(answer.headers["retry-after"]) >= 1
    nats_server.start()
    async with asyncio.timeout(15):
        while answer.status_code == 503:
            answer = await gateway.client.post("/runs", json=body(), headers=headers)
    assert answer.status_code == 202
    assert len(await events(bus)) == 1


WRONG_FIELDS: list[tuple[dict[str, Any], int, str | None, str]] = [
        ({"priority": -1}, 422, "field.range", "spec.priority"),
        ({"priority": 0.5}, 422, "field.invalid", "spec.priority"),
        ({"priority": 1_000_000}, 422, "field.range", "spec.priority"),
        ({"resources": {"gpus": -1}}, 422, "field.range", "spec.resources.gpus"),
        ({"resources": {"gpus": 0.5}}, 422, "field.invalid", "spec.resources.gpus"),
        ({"resources": {"gpus": 1_000_000}}, 422, "field.range", "spec.resources.gpus"),
        ({"max_duration_s": 0}, 422, "field.range", "spec.max_duration_s"),
        ({"max_duration_s": 10 * 365 * 86_400}, 422, "field.range", "spec.max_duration_s"),
        ({"max_retries": 1_000_000}, 422, "field.range", "spec.max_retries"),
        ({"priorty": 3}, 422, "field.unknown", "spec.priorty"),
        ({"script": "b.py"}, 422, "source.entrypoint", "spec.script"),
        ({"command": ["x"]}, 422, "field.invalid", "spec"),
        ({"arguments": "--epochs 5"}, 422, "field.invalid", "spec.arguments"),
        ({"environment": "keras"}, 422, "field.invalid", "spec.environment"),
        ({"target": "No_Such"}, 422, "name.charset", "spec.target"),
        ({"display_name": "a\u202eb"}, 422, "name.charset", "spec.display_name"),
        ({"display_name": "a\r\nb"}, 422, "name.charset", "spec.display_name"),
        ({"display_name": "a\x00b"}, 422, "name.charset", "spec.display_name"),
        ({"display_name": "a\u200bb"}, 422, "name.charset", "spec.display_name"),
        ({"tags": {"a\nb": "c"}}, 422, "name.charset", "spec.tags"),
        ({"environment": {"pip_packages": ["keras @ file:///x"]}}, 422, None, "spec.environment.pip_packages[0]"),
        ({"environment": {"pyhton": "3.11"}}, 422, "field.unknown", "spec.environment.pyhton"),
        ({"arguments": ["a", "b\0c"]}, 422, "text.nul", "spec.arguments[1]"),
        ({"environment_variables": {"A": "\0"}}, 422, "text.nul", "spec.environment_variables.A"),
        ({"inputs": {"d": {"dataset": "d", "path": "/etc"}}}, 422, "input.path", "spec.inputs.d.path"),
        ({"inputs": {"d": {"dataset": "d", "path": "../d"}}}, 422, "input.path", "spec.inputs.d.path"),
        ({"source": {"inline": {"a.py": "", "../b": ""}}}, 422, "source.path", "spec.source.inline"),
        ({"source": {"inline": {"a.py": "", "a.py/b": ""}}}, 422, "source.ambiguous", "spec.source.inline"),
        ({"source": {"inline": {"a.py": "", "\u00e9": "", "e\u0301": ""}}}, 422, "source.ambiguous", "spec.source.inline"),
        ({"environment_variables": {"A": 5}}, 422, "field.invalid", "spec.environment_variables.A"),
    ]  # fmt: skip


async def test_wrong_fields_are_named(
    gateway: Gateway, bus: Bus, subtests: pytest.Subtests
) -> None:
    for spec, status, code, field in WRONG_FIELDS:
        with subtests.test(spec=spec):
            answer = await gateway.client.post("/runs", json=body(**spec))
            problem = answer.json()
            assert (answer.status_code, problem["field"]) == (status, field), problem
            assert code is None or problem["code"] == code
            assert problem["detail"].startswith(field)
            assert await events(bus) == []


BAD_NAMES: list[str] = [
    "a\x00b",
    "a\r\nb",
    "a\u202eb",
    "a\u200bb",
    "",
    "\U0001f469",
    "-x",
]


async def test_experiment_names_have_plain_characters(
    gateway: Gateway, subtests: pytest.Subtests
) -> None:
    for name in BAD_NAMES:
        with subtests.test(name=name):
            answer = await gateway.client.post("/runs", json={**body(), "experiment": name})
            assert (answer.status_code, answer.json()["code"]) == (422, "name.charset")
            assert answer.json()["field"] == "experiment"


async def test_emoji_are_kept_in_display_names_and_letters_composed(gateway: Gateway) -> None:
    family = "\U0001f469\u200d\U0001f467"
    answer = await gateway.client.post("/runs", json=body(display_name=f"u\u0308ber {family}"))
    assert answer.json()["display_name"] == f"\u00fcber {family}"


async def test_a_misspelt_field_is_suggested(gateway: Gateway) -> None:
    answer = await gateway.client.post("/runs", json=body(argumets=["--epochs"]))
    assert "Did you mean arguments?" in answer.json()["detail"]


async def test_what_is_no_object_is_told_its_fields(gateway: Gateway) -> None:
    for change, said in (
        ({"environment": "keras"}, "got 'keras'. It must be a JSON object with name, version."),
        (
            {"inputs": {"d": "mnist"}},
            "It must be a JSON object with dataset, lazy, mode, path, version.",
        ),
        ({"resources": []}, "It must be a JSON object with cpus, gpus, memory_mb."),
        ({"arguments": [{"input": "d", "x": 1}]}, "there is no such field. Fields are input."),
        ({"max_retries": "two"}, "got 'two'. It must be a whole number."),
    ):
        answer = await gateway.client.post("/runs", json=body(**change))
        assert answer.json()["detail"].endswith(said)


async def test_secrets_are_not_repeated(gateway: Gateway) -> None:
    answer = await gateway.client.post(
        "/runs", json=body(environment_variables={"bad name": "hunter2", "A": ["hunter2"]})
    )
    assert answer.status_code == 422
    assert "hunter2" not in answer.text


async def test_a_run_that_is_too_large_for_an_event_is_413(gateway: Gateway) -> None:
    many = {f"V{n}": "x" * 1000 for n in range(300)}
    answer = await gateway.client.post("/runs", json=body(environment_variables=many))
    assert (answer.status_code, answer.json()["code"]) == (413, "run.too_large")


async def test_what_a_run_names_must_exist(gateway: Gateway, services: Services, bus: Bus) -> None:
    async def clusters(_: dict[str, Any]) -> dict[str, Any]:
        cluster = {
            "name": "gpu-cluster", "vm_size": "x", "vm_priority": "dedicated", "min_nodes": 0,
            "max_nodes": 1, "idle_seconds_before_scaledown": 1, "slots_per_node": 1,
            "current_nodes": 0, "target_nodes": 0, "queued_runs": 0,
            "created_at": "2026-01-01T00:00:00Z", "modified_at": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        return {"items": [cluster], "next_cursor": None}

    await services.on("scheduler", "compute-get", not_found)
    await services.on("scheduler", "compute-list", clusters)
    await services.on("dataset", "dataset-get", not_found)
    await services.on("environment-build", "environment-get", no_environment)
    await services.on("history", "run-get", not_found)
    cases: list[tuple[dict[str, Any], str, str, str]] = [
        (body(target="gpu-cluste"), "compute.not_found", "spec.target", "Did you mean gpu-cluster? There are gpu-cluster, local."),
        (body(inputs={"data": {"dataset": "mnist", "version": 3}}), "dataset.not_found", "spec.inputs.data", "'mnist' version 3"),
        (body(environment={"name": "keras"}), "environment.not_found", "spec.environment", "'keras'"),
        ({**body(), "parent_run_id": "abc"}, "run.not_found", "parent_run_id", "abc"),
    ]  # fmt: skip
    for request, code, field, words in cases:
        answer = await gateway.client.post("/runs", json=request)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["field"]) == (404, code, field)
        assert words in problem["detail"]
    asked = [fields for verb, fields in services.asked if verb == "dataset-get"]
    assert asked == [{"name": "mnist", "version": 3}, {"dataset_id": "mnist"}]
    assert await events(bus) == []


async def test_services_that_are_away_or_slow_do_not_stop_a_submission(
    gateway: Gateway, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.precheck.BEST_EFFORT_S", 0.1)
    never = asyncio.Event()

    async def hang(_: dict[str, Any]) -> RunView:
        await never.wait()
        raise AssertionError

    await services.on("scheduler", "compute-get", hang)
    answer = await gateway.client.post(
        "/runs", json=body(target="gpu", inputs={"d": {"dataset": "x"}}, environment={"name": "e"})
    )
    assert answer.status_code == 202


async def test_a_run_can_be_read_as_soon_as_it_is_accepted(
    gateway: Gateway, services: Services
) -> None:
    await services.on("history", "run-get", not_found)
    run_id = (await gateway.client.post("/runs", json=body())).json()["run_id"]
    answer = await gateway.client.get(f"/runs/{run_id}")
    assert (answer.status_code, answer.json()["status"]) == (200, "NotStarted")
    assert answer.json()["spec"]["script"] == "a.py"
    unknown = await gateway.client.get(f"/runs/{'0' * 32}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "run.not_found")


async def test_why_a_submission_on_the_bus_became_no_run_is_told_to_who_asks_for_it(
    gateway: Gateway, services: Services, bus: Bus
) -> None:
    await services.on("history", "run-get", not_found)
    content = {"run_id": "mine", "experiment": "e", "spec": {"scrypt": "a.py"}}
    headers = {"ce-type": RunSubmitted.type_name(), "ce-id": "1"}
    subject = "sw.evt.submission.mine.submitted"
    await bus.publish_raw(subject, json.dumps(content).encode(), headers)
    for method, path in (("GET", "/runs/mine"), ("POST", "/runs/mine/cancel")):
        answer = await gateway.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "run.not_found")
        assert "refused, " in answer.json()["detail"]
        assert "spec.scrypt: There is no such field" in answer.json()["detail"]


async def test_a_waiting_run_shows_its_place_in_the_queue(
    gateway: Gateway, services: Services
) -> None:
    async def run_get(request: dict[str, Any]) -> RunView:
        return view(request["run_id"], "Queued")

    async def queue_get(_: dict[str, Any]) -> QueueReply:
        place = QueueView(pool="gpu", position=2, reason="no-slot", message="full", unblock="wait")
        return QueueReply(queue=place)

    await services.on("history", "run-get", run_get)
    without = await gateway.client.get("/runs/abc")
    assert (without.status_code, without.json()["queue"]) == (200, None)
    await services.on("scheduler", "queue-get", queue_get)
    assert (await gateway.client.get("/runs/abc")).json()["queue"]["position"] == 2


async def test_cancel_publishes_and_may_be_repeated(
    gateway: Gateway, services: Services, bus: Bus
) -> None:
    async def run_get(request: dict[str, Any]) -> RunView:
        return view(request["run_id"], "Finalizing")

    await services.on("history", "run-get", run_get)
    answers = [await gateway.client.post("/runs/abc/cancel?reason=enough") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["status"] == "CancelRequested"
    (event,) = await events(bus)
    assert event == RunCancelRequested(run_id="abc", requested_by="ann", reason="enough")


@pytest.mark.parametrize("status", ["Completed", "Failed", "Canceled"])
async def test_a_run_that_is_over_cannot_be_canceled(
    gateway: Gateway, services: Services, bus: Bus, status: str
) -> None:
    async def run_get(request: dict[str, Any]) -> RunView:
        return view(request["run_id"], status)

    await services.on("history", "run-get", run_get)
    answer = await gateway.client.post("/runs/abc/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "run.already_terminal")
    assert status in answer.json()["detail"]
    assert await events(bus) == []


async def test_completing_a_script_is_for_the_script_and_may_be_said_again(
    gateway: Gateway, services: Services, bus: Bus
) -> None:
    states = iter(("Running", "Completed"))

    async def run_get(request: dict[str, Any]) -> RunView:
        return view(request["run_id"], next(states))

    await services.on("history", "run-get", run_get)
    refused = await gateway.client.post("/runs/abc/end", json={"status": "Completed"})
    assert (refused.status_code, refused.json()["code"]) == (409, "run.not_interactive")
    again = await gateway.client.post("/runs/abc/end", json={"status": "Completed"})
    assert (again.status_code, again.json()["status"]) == (200, "Completed")
    assert await events(bus) == []


async def test_cancel_of_an_unknown_run_is_404(gateway: Gateway, services: Services) -> None:
    await services.on("history", "run-get", not_found)
    answer = await gateway.client.post("/runs/abc/cancel")
    assert (answer.status_code, answer.json()["code"]) == (404, "run.not_found")


async def test_cancel_works_while_history_is_away(gateway: Gateway, bus: Bus) -> None:
    run_id = (await gateway.client.post("/runs", json=body())).json()["run_id"]
    assert (await gateway.client.post(f"/runs/{run_id}/cancel")).status_code == 202
    assert (await gateway.client.post("/runs/abc/cancel")).status_code == 503
    assert [type(event) for event in await events(bus)] == [RunSubmitted, RunCancelRequested]


async def test_tags_are_patched_by_history(gateway: Gateway, services: Services) -> None:
    async def run_patch(request: dict[str, Any]) -> RunView:
        if "owner" in request["patch"].get("properties", {}):
            raise ConflictError("properties never change", code="run.property", field="properties")
        return view(request["run_id"])

    await services.on("history", "run-patch", run_patch)
    answer = await gateway.client.patch("/runs/abc", json={"tags": {"a": None}})
    assert answer.status_code == 200
    assert services.asked == [("run-patch", {"run_id": "abc", "patch": {"tags": {"a": None}}})]
    refused = await gateway.client.patch("/runs/abc", json={"properties": {"owner": "x"}})
    assert (refused.status_code, refused.json()["field"]) == (409, "properties")
    assert (await gateway.client.patch("/runs/abc", json={"tag": {}})).status_code == 422


async def test_what_a_service_refuses_comes_through_and_what_breaks_does_not(
    gateway: Gateway, services: Services
) -> None:
    async def refuse(_: dict[str, Any]) -> RunView:
        raise UserError("order: unknown", code="run.order", field="order")

    async def broken(_: dict[str, Any]) -> RunView:
        raise RuntimeError("password=hunter2")

    await services.on("history", "run-list", refuse)
    await services.on("history", "experiment-list", broken)
    refused = await gateway.client.get("/runs")
    assert (refused.status_code, refused.json()["code"]) == (422, "run.order")
    failed = await gateway.client.get("/experiments")
    assert (failed.status_code, failed.json()["code"]) == (500, "internal")
    assert "hunter2" not in failed.text


async def test_an_answer_that_breaks_the_contract_is_500_with_an_id(
    gateway: Gateway, services: Services
) -> None:
    async def nonsense(_: dict[str, Any]) -> dict[str, Any]:
        return {"status": "secret-detail"}

    await services.on("history", "run-get", nonsense)
    answer = await gateway.client.get("/runs/abc")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret-detail" not in answer.text


async def test_a_service_that_does_not_answer_is_503(
    gateway: Gateway, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.submission.ANSWER_S", 0.2)
    answer = await gateway.client.get("/runs")
    assert (answer.status_code, answer.json()["code"]) == (503, "history.down")
    assert answer.headers["retry-after"] == "1"


async def test_answers_do_not_wait_for_acknowledgements(gateway: Gateway) -> None:
    """Without TCP_NODELAY every answer takes 40 ms or more."""
    times = []
    for _ in range(30):
        started = time.perf_counter()
        await gateway.stranger.get("/docs.css")
        times.append(time.perf_counter() - started)
    assert sorted(times)[len(times) // 2] < 0.035


async def test_the_gateway_listens_on_its_own_port_and_stops_in_order(
    gateway_factory: GatewayFactory,
) -> None:
    gateway = await gateway_factory()
    assert (await gateway.client.get("/info")).status_code == 200
    await gateway.runtime.stop()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", gateway.port)
