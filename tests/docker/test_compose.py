"""``docker compose up --wait`` from the repository root, the main job on it, and what it survives."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import yaml
from composed import ROOT, Composed, body, demo, lines, started, until_running
from stack import log_text, submit, wait_terminal

KILLED = (
    "scheduler", "nats", "history", "objects", "gateway", "dataset", "environment-build",
    "model-registry", "keyvault", "registry",
)  # fmt: skip


@pytest.fixture(scope="module")
def platform() -> Iterator[Composed]:
    with started(Composed(observed=True)) as composed:
        yield composed


def test_no_secret_is_where_others_look_and_ports_are_on_loopback(platform: Composed) -> None:
    secrets = [platform.token, *_secrets(platform)]
    assert len(secrets) > 15
    for name, container in platform.containers().items():
        told = json.dumps(container.attrs)
        assert not [secret for secret in secrets if secret in told], name
        bindings = (container.attrs["HostConfig"]["PortBindings"] or {}).values()
        assert {port["HostIp"] for ports in bindings for port in ports} <= {"127.0.0.1"}, name
        config = container.attrs["HostConfig"]
        assert config["CapDrop"] == ["ALL"], name
        assert "no-new-privileges=true" in config["SecurityOpt"], name
        assert container.attrs["Config"]["User"] not in {"", "root"}, name


def test_the_profile_gpu_asks_for_the_devices(platform: Composed) -> None:
    """Whether a device comes of it nobody has tried: what the engine is asked for is right."""
    done = platform.compose("--profile", "gpu", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    gpu, plain = services["executor-gpu"], services["executor-1"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"capabilities": ["gpu"], "driver": "nvidia", "count": -1}  # all of them
    differ = {
        name
        for name in gpu["environment"].keys() | plain["environment"].keys()
        if gpu["environment"].get(name) != plain["environment"].get(name)
    }
    assert differ == {
        "STELLWERK_EXECUTOR_ID", "STELLWERK_NATS_CREDENTIALS", "STELLWERK_SCHEDULER_CREDENTIALS",
    }  # fmt: skip
    assert {name for name in gpu if gpu[name] != plain.get(name)} == {
        "deploy", "environment", "profiles", "user", "volumes",
    }  # fmt: skip


def test_prometheus_has_every_role_and_what_the_alerts_ask_for(platform: Composed) -> None:
    with platform.http() as http:
        assert wait_terminal(http, submit(http, body("print(1)")))["status"] == "Completed"
    done = platform.compose("--profile", "gpu", "config", "--format", "json")
    roles = {
        name
        for name, each in json.loads(done.stdout)["services"].items()
        if "STELLWERK_HTTP_PORT" in each.get("environment", {})
    } - {"topology", "init", "executor-gpu"}
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{platform.ports['STELLWERK_PROMETHEUS_PORT']}/api/v1",
        trust_env=False,
        timeout=30,
    ) as prometheus:

        def ask(path: str, **query: str) -> Any:
            answer = prometheus.get(path, params=query)
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]

        def wait(path: str, wanted: Callable[[Any], bool], **query: str) -> Any:
            end = time.monotonic() + 90
            while not wanted(found := ask(path, **query)):
                assert time.monotonic() < end, found
                time.sleep(0.5)
            return found

        def all_up(found: Any) -> bool:
            return all(each["health"] == "up" for each in found["activeTargets"])

        targets = wait("/targets", all_up)["activeTargets"]
        assert {each["labels"]["instance"].partition(":")[0] for each in targets} == roles

        # A run's way, as numbers: what its services told each other.
        for fact in ("submission.submitted", "run.assigned", "attempt.exited", "run.completed"):
            query = f'sum(stellwerk_bus_published_total{{type="stellwerk.{fact}.v1"}}) > 0'
            wait("/query", lambda found: bool(found["result"]), query=query)
        kept = "sum(stellwerk_history_log_bytes_total) > 0"
        wait("/query", lambda found: bool(found["result"]), query=kept)

        def quiet(found: Any) -> bool:
            return all(each["state"] == "inactive" for each in found["groups"][0]["rules"])

        (group,) = wait("/rules", quiet)["groups"]
        given = yaml.safe_load((ROOT / "deploy/docker/alerts.yml").read_text())
        assert len(group["rules"]) == len(given["groups"][0]["rules"])
        served = {each["metric"] for each in ask("/targets/metadata")}
        for rule in group["rules"]:
            assert rule["health"] == "ok", rule
            names = set(re.findall(r"\b(?:stellwerk_\w+|up)\b", rule["query"]))
            assert names
            families = {re.sub(r"_(total|bucket)$", "", name) for name in names} - {"up"}
            known = served | {re.sub(r"_total$", "", name) for name in served}
            assert families <= known, rule["query"]


def test_a_role_reads_its_own_credentials_only(platform: Composed) -> None:
    script = "for f in /credentials/*; do test -r $f && basename $f; done; true"
    told = platform.containers()["history"].exec_run(["sh", "-c", script]).output.decode().split()
    assert told == ["nats-history.json", "s3.json"]


def test_a_second_up_keeps_credentials_and_data(platform: Composed) -> None:
    with platform.http() as http:
        run = submit(http, body("print('before')"))
        assert wait_terminal(http, run)["status"] == "Completed"
    token = platform.token
    assert platform.compose("down", "--timeout", "10").returncode == 0
    platform.up()
    assert platform.token == token
    with platform.http() as http:
        assert log_text(http, run) == b"before\n"


def test_main_job(platform: Composed) -> None:
    """`make demo STELLWERK_URL=…`: Keras on MNIST, on MinIO, in the executors' containers."""
    demo(platform)


def test_a_run_survives_kill_of_every_other_container(platform: Composed) -> None:
    with platform.http() as http:
        run = submit(http, body(lines(240)))
        until_running(platform, run)
        for service in KILLED:
            platform.kill(service)
        view = wait_terminal(http, run, 120)
        assert view["status"] == "Completed", view
        assert log_text(http, run).decode().splitlines() == [f"line {n}" for n in range(240)]
    platform.wait_healthy()


@pytest.mark.parametrize("executor", ["executor-1", "executor-2"])
def test_a_killed_executor_costs_an_attempt_not_the_run(platform: Composed, executor: str) -> None:
    """Runs are processes in the executor's container: they die with it and are tried again."""
    with platform.http() as http:
        runs = [submit(http, body(lines(60))) for _ in range(2)]
        for run in runs:
            until_running(platform, run)
        platform.kill(executor)
        views = [wait_terminal(http, run, 300) for run in runs]
        assert [view["status"] for view in views] == ["Completed", "Completed"], views
        for run in runs:
            assert log_text(http, run).decode().splitlines() == [f"line {n}" for n in range(60)]
    platform.wait_healthy()


OTHERS = ["seaweedfs", *(["rustfs"] if "STELLWERK_TEST_RUSTFS" in os.environ else [])]


@pytest.mark.parametrize("store", OTHERS)
def test_the_same_on_another_store(store: str) -> None:
    with started(Composed(store)) as composed, composed.http() as http:
        run = submit(http, body("print('stored')"))
        assert wait_terminal(http, run)["status"] == "Completed"
        assert log_text(http, run) == b"stored\n"


def _secrets(platform: Composed) -> list[str]:
    done = platform.compose(
        "run", "--rm", "--no-deps", "-T", "init", "sh", "-c",
        "cat /credentials/nats-*.json /credentials/s3.json /credentials/executor-*.json",
    )  # fmt: skip
    texts = done.stdout.replace("}{", "}\n{").splitlines()
    fields = ("password", "secret_key", "token")
    return [str(content[f]) for content in map(json.loads, texts) for f in fields if f in content]
