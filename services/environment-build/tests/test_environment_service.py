"""The service on a real broker: runs get their environment, whatever happens to the builder."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stellwerk.api import BuildView, EnvironmentView, Page
from stellwerk.curated import curated_environments
from stellwerk.environment_spec import EnvironmentDefinition, from_packages
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.events import (
    Envelope,
    ImageBuildStarted,
    ImageReady,
    RunPreparing,
)
from stellwerk.runspec import EnvironmentReference
from stellwerk_environment_build.construction import Activated, Construction
from stellwerk_environment_build.settings import Settings
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.service import Runtime
from stellwerk_kit.testing import wait_until
from stellwerk_kit.voice import Voice

MakeWheel = Callable[..., Path]
Start = Callable[..., Awaitable[Runtime[Settings]]]
NAME = "environment-build"


async def test_first_run_waits_for_the_build_and_the_second_is_served_at_once(
    bus: Bus, seen: Any, start: Start, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    make_wheel("alpha")
    await start()
    first = EnvironmentDefinition(pip_packages=("alpha",), environment_variables={"A": "1"})
    await seen.prepare("run-1", first)
    image = await seen.ready("run-1")
    assert not image.cached
    assert image.seconds > 0
    assert image.image.environment_variables == {"A": "1"}
    assert (tmp_path / "environments" / image.env_id / "bin/python").exists()
    [began] = seen.about("run-1", ImageBuildStarted)
    assert (began.env_id, began.build) == (image.env_id, 1)
    await wait_until(lambda: seen.log_closed(image.env_id, 1))
    text = seen.log_text(image.env_id, 1)
    assert text.startswith(f"Preparing environment {image.env_id}")
    assert "+ alpha==1.0\n" in text
    assert {(each.headers or {})["Sw-Path"] for each in seen.logs} == {
        "azureml-logs/20_image_build_log.txt"
    }

    await seen.prepare("run-2", from_packages(["ALPHA"]))
    again = await seen.ready("run-2")
    assert again.cached
    assert again.env_id == image.env_id
    assert again.image.environment_variables == {}
    assert not seen.about("run-2", ImageBuildStarted)
    view = await bus.call(NAME, "build-get", {"env_id": image.env_id}, BuildView)
    assert (view.state, view.build, view.packages) == ("ready", 1, ("alpha==1.0",))


async def test_the_outbox_answers_where_the_broker_did_not_acknowledge(
    seen: Any, start: Start, make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel("alpha")
    await start()
    await seen.prepare("run-1", from_packages(["alpha"]))
    await seen.ready("run-1")

    async def unheard(*_: object, **__: object) -> bool:
        return False

    monkeypatch.setattr(Voice, "say", unheard)
    await seen.prepare("run-2", from_packages(["alpha"]))
    assert (await seen.ready("run-2")).cached


async def test_a_run_that_asks_again_is_told_again(
    seen: Any, start: Start, make_wheel: MakeWheel
) -> None:
    """Its node may lack what is here; the scheduler's inbox would drop a fact it has had."""
    make_wheel("alpha")
    await start()
    await seen.prepare("run-1", from_packages(["alpha"]))
    await seen.ready("run-1")
    await seen.prepare("run-2", from_packages(["alpha"]))
    await seen.prepare("run-2", from_packages(["alpha"]), sequence=7)
    await seen.prepare("run-1", from_packages(["alpha"]), sequence=7)
    await wait_until(lambda: len(seen.about("run-1", ImageReady)) == 2)
    told = [*seen.about("run-1", ImageReady), *seen.about("run-2", ImageReady)]
    assert [(each.cached, each.asked) for each in told] == [
        (False, 0), (True, 7), (True, 2), (True, 7)
    ]  # fmt: skip
    assert len({each.event_id() for each in told}) == 4


async def test_many_runs_join_one_build(
    bus: Bus, seen: Any, start: Start, make_wheel: MakeWheel
) -> None:
    make_wheel("alpha")
    await start()
    ids = [f"run-{number}" for number in range(50)]
    for run_id in ids:
        await seen.prepare(run_id, from_packages(["alpha"]))
    images = [await seen.ready(run_id) for run_id in ids]
    assert len({image.env_id for image in images}) == 1
    assert {image.build for image in images} == {1}
    told = [
        run_id for each in seen.events if isinstance(each, ImageReady) for run_id in each.run_ids
    ]
    assert sorted(told) == sorted(ids)
    starts = {each.build for each in seen.events if isinstance(each, ImageBuildStarted)}
    assert starts <= {1}


@pytest.mark.parametrize(
    ("definition", "code", "words"),
    [
        (EnvironmentDefinition(pip_packages=("alpha>9",)), "env.unsatisfiable", "alpha>9"),
        (EnvironmentDefinition(pip_packages=("--pre",)), "env.option", "pip_packages[0]"),
        (
            EnvironmentDefinition(pip_packages=("numpy==1.16.4", "azureml-core"), strict=True),
            "env.strict",
            "azureml-core -> ",
        ),
        (EnvironmentReference(name="nowhere"), "env.not_found", "nowhere"),
    ],
)
async def test_run_is_told_what_is_wrong_with_its_environment(
    bus: Bus,
    seen: Any,
    start: Start,
    make_wheel: MakeWheel,
    definition: EnvironmentDefinition | EnvironmentReference,
    code: str,
    words: str,
) -> None:
    make_wheel("alpha")
    await start()
    await seen.prepare("run-1", definition)
    failure = await seen.failed("run-1")
    assert (failure.reason, failure.code) == ("your-spec", code)
    assert words in failure.message
    await seen.prepare("run-2", from_packages(["alpha"]))
    await seen.ready("run-2")


async def test_what_no_event_can_hold_is_a_failure_and_nobody_waits_for_ever(
    seen: Any, start: Start, make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the build that finds it, and by the next run, for which the environment is there."""

    async def talkative(_self: Construction) -> Activated:
        return Activated({}, ("x" * 270_000,))

    monkeypatch.setattr(Construction, "activate", talkative)
    make_wheel("alpha")
    await start()
    for run_id in ("run-1", "run-2"):
        await seen.prepare(run_id, from_packages(["alpha"]))
        failed = await seen.failed(run_id)
        assert (failed.reason, failed.code) == ("your-spec", "env.too_large")
        assert "image.ready.v1 is 27" in failed.message
        assert "the limit is 262144" in failed.message


async def test_failed_environment_is_tried_anew_for_the_next_run(
    bus: Bus, seen: Any, start: Start, make_wheel: MakeWheel
) -> None:
    await start()
    await seen.prepare("run-1", from_packages(["alpha"]))
    failure = await seen.failed("run-1")
    view = await bus.call(NAME, "build-get", {"env_id": failure.env_id}, BuildView)
    assert (view.state, view.reason) == ("failed", "your-spec")
    make_wheel("alpha")
    await seen.prepare("run-2", from_packages(["alpha"]))
    assert (await seen.ready("run-2")).build == 2


async def test_unreachable_index_is_tried_again_before_the_run_fails(
    bus: Bus, seen: Any, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    await start(build_no_index=False, build_find_links=())
    await seen.prepare("run-1", from_packages(["alpha"]))
    failure = await seen.failed("run-1")
    assert failure.reason == "index-unreachable"
    await wait_until(lambda: seen.log_closed(failure.env_id, 1))
    assert seen.log_text(failure.env_id, 1).count("Trying again in") == 2


async def test_repeated_event_is_answered_once(
    bus: Bus, seen: Any, start: Start, make_wheel: MakeWheel
) -> None:
    make_wheel("alpha")
    await start()
    event = RunPreparing(
        run_id="run-1", experiment="e", environment=from_packages(["alpha"]), inputs={}
    )
    envelope = Envelope.wrap(event, source="/test", time=SystemClock().now(), sequence=2)
    for number in range(3):  # different message ids, so that the broker keeps all of them
        headers = {**envelope.headers(), "Nats-Msg-Id": f"copy-{number}"}
        await bus.publish_raw(event.subject(), event.data(), headers)
    await seen.ready("run-1")
    await seen.prepare("run-2", from_packages(["alpha"]))
    await seen.ready("run-2")
    assert len(seen.about("run-1", ImageReady)) == 1


async def test_user_managed_environment_is_ready_without_a_build(
    bus: Bus, seen: Any, start: Start
) -> None:
    await start()
    await seen.prepare(
        "run-1", EnvironmentDefinition(user_managed=True, interpreter="/opt/x/bin/python")
    )
    image = await seen.ready("run-1")
    assert image.cached
    assert image.image.interpreter == "/opt/x/bin/python"


async def test_environments_are_registered_in_versions(
    bus: Bus, seen: Any, start: Start, make_wheel: MakeWheel
) -> None:
    make_wheel("alpha")
    await start()

    async def register(**body: Any) -> EnvironmentView:
        return await bus.call(
            NAME, "environment-register", {"name": "keras-env", **body}, EnvironmentView
        )

    conda = "channels: [conda-forge]\ndependencies:\n- pip:\n  - alpha\n"
    first = await register(conda_yaml=conda)
    same = await register(conda_yaml="# again\n" + conda)
    other = await register(requirements="alpha==1.0\n")
    assert (first.version, first.created) == (1, True)
    assert (same.version, same.created, same.env_id) == (1, False, first.env_id)
    assert (other.version, other.created) == (2, True)
    latest = await bus.call(NAME, "environment-get", {"name": "keras-env"}, EnvironmentView)
    assert (latest.version, latest.state) == (2, "not-built")

    await seen.prepare("run-1", EnvironmentReference(name="keras-env", version=1))
    image = await seen.ready("run-1")
    assert (image.image.name, image.image.version, image.env_id) == ("keras-env", 1, first.env_id)
    built = await bus.call(
        NAME, "environment-get", {"name": "keras-env", "version": 1}, EnvironmentView
    )
    assert built.state == "ready"

    page = await bus.call(NAME, "environment-list", {"limit": 1}, Page[EnvironmentView])
    rest = await bus.call(
        NAME, "environment-list", {"limit": 1, "cursor": page.next_cursor}, Page[EnvironmentView]
    )
    assert [each.version for each in (*page.items, *rest.items)] == [2, 1]
    assert rest.next_cursor is None


async def test_curated_environments_are_there_when_asked_for(
    bus: Bus, seen: Any, start: Start
) -> None:
    await start()
    views = [
        await bus.call(NAME, "environment-get", body, EnvironmentView)
        for body in (
            {"name": "azureml-SKLEARN-1.5"},
            {"name": "AzureML-sklearn-1.5", "version": 44},
            {"name": "AzureML-Sklearn-0.24-Ubuntu18.04-py37-cpu"},
        )
    ]
    assert [(view.name, view.version) for view in views] == [
        ("AzureML-sklearn-1.5", 1),
        ("AzureML-sklearn-1.5", 1),
        ("azureml-sklearn-0.24-ubuntu18.04-py37-cpu", 1),
    ]
    assert "scikit-learn==0.24.* -> scikit-learn==1.1.*: " in "\n".join(views[2].warnings)
    listed = await bus.call(NAME, "environment-list", {}, Page[EnvironmentView])
    assert len(listed.items) == 2
    await seen.prepare("run-1", EnvironmentReference(name="AzureML-SKLEARN-1.5", version=9))
    failed = await seen.failed("run-1")
    assert failed.code == "env.unsatisfiable", (
        "found, but these wheels are not in the test's folder"
    )
    with pytest.raises(NotFoundError):
        await bus.call(NAME, "environment-get", {"name": "AzureML-unheard-of"}, EnvironmentView)


async def test_the_platforms_own_environments_cannot_be_overwritten(bus: Bus, start: Start) -> None:
    await start()
    listed = await bus.call(NAME, "environment-list", {"curated": True}, Page[EnvironmentView])
    assert [(each.name, each.version) for each in listed.items] == [
        (name, 1) for name in curated_environments()
    ]
    assert all(each.curated and each.description for each in listed.items)
    others = await bus.call(NAME, "environment-list", {}, Page[EnvironmentView])
    assert others.items == ()
    found = await bus.call(NAME, "environment-get", {"name": "Keras-TF"}, EnvironmentView)
    assert (found.name, found.version, found.curated) == ("keras-tf", 1, True)
    with pytest.raises(NotFoundError, match="versions are 1 to 1"):
        await bus.call(NAME, "environment-get", {"name": "minimal", "version": 2}, EnvironmentView)
    for name in ("Minimal", "AzureML-sklearn-1.5"):
        body = {"name": name, "requirements": "six"}
        with pytest.raises(ConflictError, match="cannot be overwritten") as caught:
            await bus.call(NAME, "environment-register", body, EnvironmentView)
        assert (caught.value.code, caught.value.field) == ("env.curated", "name")


async def test_new_pins_of_a_curated_environment_are_a_new_version(
    bus: Bus, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await start()
    await runtime.stop()
    minimal = curated_environments()["minimal"]
    fewer = minimal.definition.model_copy(update={"pip_packages": ("click==8.5.1",)})
    changed = {"minimal": minimal.model_copy(update={"definition": fewer})}
    monkeypatch.setattr(
        "stellwerk_environment_build.handlers.curated_environments", lambda: changed
    )
    await start()
    newest = await bus.call(NAME, "environment-get", {"name": "minimal"}, EnvironmentView)
    assert (newest.version, newest.definition) == (2, fewer)
    body = {"name": "minimal", "version": 1}
    older = await bus.call(NAME, "environment-get", body, EnvironmentView)
    assert older.definition == minimal.definition


async def test_requests_that_cannot_be_met_name_the_field(bus: Bus, start: Start) -> None:
    await start()
    for body, code, words in (
        ({"requirements": "six\n-e .\n"}, "env.path", "line 2"),
        ({"conda_yaml": "dependencies: [six\n"}, "env.syntax", "broken"),
        ({"conda_yaml": "a: &x [1]\nb: [*x, *x]\n"}, "env.syntax", "Anchors"),
        ({"conda_yaml": "name: !!python/object/apply:os.system [ls]\n"}, "env.syntax", "Tags"),
        ({"conda_yaml": "dependencies: ['{{ x }}']\n"}, "env.syntax", "Templates"),
        ({"conda_yaml": "channels: ['https://a:b@example.invalid/c']\n"}, "env.channel", "Cred"),
        ({}, "env.field", "exactly one"),
        ({"pyproject": "[project"}, "env.syntax", "pyproject.toml"),
        ({"requirements": "six", "extras": ["x"]}, "env.field", "pyproject"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            await bus.call(NAME, "environment-register", {"name": "e", **body}, EnvironmentView)
        assert caught.value.code == code
    await bus.call(
        NAME, "environment-register", {"name": "keras", "requirements": ""}, EnvironmentView
    )
    with pytest.raises(NotFoundError, match="did you mean keras"):
        await bus.call(NAME, "environment-get", {"name": "kears"}, EnvironmentView)
    with pytest.raises(NotFoundError, match="versions are 1 to 1"):
        await bus.call(NAME, "environment-get", {"name": "keras", "version": 7}, EnvironmentView)
    with pytest.raises(UserError, match="cursor"):
        await bus.call(NAME, "environment-list", {"cursor": "???"}, Page[EnvironmentView])
    with pytest.raises(NotFoundError):
        await bus.call(NAME, "build-get", {"env_id": "f" * 40}, BuildView)


async def test_build_can_be_asked_for_and_forced(
    bus: Bus, seen: Any, start: Start, make_wheel: MakeWheel
) -> None:
    make_wheel("alpha", "1.0")
    await start()
    await bus.call(
        NAME, "environment-register", {"name": "e", "requirements": "alpha"}, EnvironmentView
    )

    async def built(number: int) -> BuildView | None:
        view = await bus.call(NAME, "build-get", {"env_id": begun.env_id}, BuildView)
        return view if (view.state, view.build) == ("ready", number) else None

    begun = await bus.call(NAME, "build-start", {"name": "e"}, BuildView)
    assert begun.state == "building"
    first: BuildView | None = await wait_until(lambda: built(1))
    assert first is not None
    assert first.packages == ("alpha==1.0",)
    make_wheel("alpha", "2.0")
    there = await bus.call(NAME, "build-start", {"name": "e"}, BuildView)
    assert (there.state, there.packages) == ("ready", ("alpha==1.0",))
    await bus.call(NAME, "build-start", {"name": "e", "rebuild": True}, BuildView)
    second: BuildView | None = await wait_until(lambda: built(2))
    assert second is not None
    assert second.packages == ("alpha==2.0",)


async def test_restart_takes_builds_up_again(
    bus: Bus,
    seen: Any,
    start: Start,
    tmp_path: Path,
    hanging_index: str,
    make_wheel: MakeWheel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", hanging_index)
    runtime = await start(build_no_index=False, build_find_links=(), build_heartbeat_s=0.1)
    await seen.prepare("run-1", from_packages(["alpha"]))
    await wait_until(lambda: any(b"resolving" in each.data for each in seen.logs), 20)
    await runtime.stop()
    assert not list((tmp_path / "environments/.building").iterdir())
    make_wheel("alpha")
    await start()
    image = await seen.ready("run-1")
    assert image.build == 2
    assert [each.build for each in seen.about("run-1", ImageBuildStarted)] == [1, 2]
