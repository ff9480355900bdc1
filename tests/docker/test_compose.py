"""``docker compose up --wait`` from the repository root, the main job on it, and what it survives."""

import json
from collections.abc import Iterator

import pytest
import yaml
from composed import ROOT, Composed, body, demo, lines, until_running
from stack import log_text, submit, wait_terminal

KILLED = (
    "scheduler", "nats", "history", "objects", "gateway", "dataset", "environment-build",
    "model-registry", "keyvault", "registry",
)  # fmt: skip


@pytest.fixture(scope="module")
def platform() -> Iterator[Composed]:
    composed = Composed()
    try:
        composed.up()
        yield composed
    finally:
        composed.down()
    assert composed.left() == []


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


def test_the_profiles_are_complete(platform: Composed) -> None:
    """`gpu` and `observability`: valid, and every address that is scraped answers with metrics."""
    done = platform.compose(
        "--profile", "gpu", "--profile", "observability", "config", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    (device,) = services["executor-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert services["prometheus"]["ports"][0]["host_ip"] == "127.0.0.1"
    scraped = yaml.safe_load((ROOT / "deploy/docker/prometheus.yml").read_text())
    (targets,) = (each["targets"] for each in scraped["scrape_configs"][0]["static_configs"])
    roles = {
        name
        for name, each in services.items()
        if "STELLWERK_HTTP_PORT" in each.get("environment", {})
    }
    assert {target.partition(":")[0] for target in targets} == roles - {
        "topology",
        "init",
        "executor-gpu",
    }
    ask = "import sys, urllib.request as r; [r.urlopen(f'http://{t}/metrics').read() for t in sys.argv[1:]]"
    said = platform.containers()["gateway"].exec_run(
        ["/opt/stellwerk/bin/python3", "-c", ask, *targets]
    )
    assert said.exit_code == 0, said.output


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


def test_the_same_on_seaweedfs() -> None:
    composed = Composed("seaweedfs")
    try:
        composed.up()
        with composed.http() as http:
            run = submit(http, body("print('stored')"))
            assert wait_terminal(http, run)["status"] == "Completed"
            assert log_text(http, run) == b"stored\n"
    finally:
        composed.down()
    assert composed.left() == []


def _secrets(platform: Composed) -> list[str]:
    done = platform.compose(
        "run", "--rm", "--no-deps", "-T", "init", "sh", "-c",
        "cat /credentials/nats-*.json /credentials/s3.json /credentials/executor-*.json",
    )  # fmt: skip
    texts = done.stdout.replace("}{", "}\n{").splitlines()
    fields = ("password", "secret_key", "token")
    return [str(content[f]) for content in map(json.loads, texts) for f in fields if f in content]
