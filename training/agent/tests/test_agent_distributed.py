"""Several processes of one script: ranks, logs, ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import stellwerk_agent
from stellwerk_agent import distributed
from stellwerk_agent.distributed import PREFERRED_PORT, free_ports, variables

AGENT = str(Path(stellwerk_agent.__file__).parent.parent)


def start(
    tmp_path: Path, script: str, backend: str = "pytorch", processes: int = 3, *more: str
) -> subprocess.Popen[str]:
    (tmp_path / "script.py").write_text(script)
    return subprocess.Popen(
        [sys.executable, "-m", "stellwerk_agent.distributed", "--backend", backend,
         "--processes", str(processes), "--logs", str(tmp_path / "logs"), *more, "--",
         sys.executable, "-u", str(tmp_path / "script.py"), "--lr", "0.1"],
        env={**os.environ, "PYTHONPATH": AGENT}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def logs(tmp_path: Path) -> list[str]:
    return [path.read_text() for path in sorted((tmp_path / "logs").iterdir())]


@pytest.mark.parametrize(
    ("backend", "names"),
    [
        ("pytorch", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"]),
        ("mpi", ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "AZ_BATCH_MASTER_NODE"]),
    ],
)  # fmt: skip
def test_each_process_knows_its_rank(tmp_path: Path, backend: str, names: list[str]) -> None:
    script = f"import os, sys; print(*[os.environ[n] for n in {names!r}], *sys.argv[1:])\nprint('end', end='')"
    run = start(tmp_path, script, backend)
    out, _ = run.communicate(timeout=30)
    assert run.returncode == 0
    own = [text.splitlines()[0].split() for text in logs(tmp_path)]
    assert [each[0] for each in own] == ["0", "1", "2"]
    assert [each[1] for each in own] == ["0", "1", "2"]
    assert all(each[2] == "3" and each[-2:] == ["--lr", "0.1"] for each in own)
    assert len({tuple(each[3:]) for each in own}) == 1, "all of them meet at one place"
    merged = sorted(out.splitlines())
    assert merged == sorted(
        f"[{rank}] {line}" for rank, text in enumerate(logs(tmp_path)) for line in text.splitlines()
    )


def test_tensorflow_gets_its_cluster_and_servers_end_with_the_workers(tmp_path: Path) -> None:
    script = (
        "import json, os, pathlib, time\n"
        f"serving = pathlib.Path({str(tmp_path / 'serving')!r})\n"
        "config = json.loads(os.environ['TF_CONFIG'])\n"
        "print(json.dumps(config))\n"
        "if config['task']['type'] == 'ps':\n    serving.touch()\n    time.sleep(600)\n"
        "while not serving.exists(): time.sleep(0.01)\n"
    )
    run = start(tmp_path, script, "tensorflow", 3, "--parameter-servers", "1")
    run.communicate(timeout=30)
    assert run.returncode == 0
    configs = [json.loads(text) for text in logs(tmp_path)]
    tasks = [(each["task"]["type"], each["task"]["index"]) for each in configs]
    assert tasks == [("worker", 0), ("worker", 1), ("ps", 0)]
    assert configs[0]["cluster"] == configs[2]["cluster"]
    places = configs[0]["cluster"]["worker"] + configs[0]["cluster"]["ps"]
    assert len(set(places)) == 3


def test_one_that_fails_ends_all(tmp_path: Path) -> None:
    script = "import os, time, sys\nif os.environ['RANK'] == '1': sys.exit(7)\ntime.sleep(600)\n"
    run = start(tmp_path, script)
    began = time.monotonic()
    out, _ = run.communicate(timeout=30)
    assert run.returncode == 7
    assert "process 1 ended with 7; ending the others" in out
    assert time.monotonic() - began < 20


def test_one_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(distributed, "END_GRACE_S", 0.2)
    ready = tmp_path / "ready"
    script = (
        "import os, pathlib, signal, sys, time\n"
        f"ready = pathlib.Path({str(ready)!r})\n"
        "if os.environ['RANK'] == '1':\n"
        "    while not ready.exists(): time.sleep(0.01)\n"
        "    sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready.touch()\nprint('on\\n\\nand on', flush=True)\ntime.sleep(600)\n"
    )
    try:
        code = distributed.run(
            [sys.executable, "-c", script], "pytorch", 2, 0, str(tmp_path / "logs")
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 7
    assert capfd.readouterr().out.splitlines() == [
        "[0] on", "[0] ", "[0] and on", "process 1 ended with 7; ending the others",
    ]  # fmt: skip


def test_a_stop_reaches_all_and_gives_them_time(tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "def stop(*_):\n    print('saved', flush=True)\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\ntime.sleep(600)\n"
    )
    (tmp_path / "script.py").write_text(script)
    run = subprocess.Popen(
        [sys.executable, "-m", "stellwerk_agent.distributed", "--backend", "mpi", "--processes", "2",
         "--logs", str(tmp_path / "logs"), "--", sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": AGENT}, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert run.stdout is not None
    ready = [run.stdout.readline(), run.stdout.readline()]
    assert sorted(ready) == ["[0] ready\n", "[1] ready\n"]
    os.killpg(run.pid, signal.SIGTERM)  # as the run's supervisor does
    out, _ = run.communicate(timeout=30)
    assert sorted(out.splitlines()) == ["[0] saved", "[1] saved"]
    assert run.returncode == 0


def test_a_taken_port_is_left_alone() -> None:
    with socket.socket() as taken:
        with suppress(OSError):  # somebody else has it: just as well
            taken.bind(("127.0.0.1", PREFERRED_PORT))
        assert PREFERRED_PORT not in free_ports(2)
    assert variables("pytorch", 1, 2, 0, [7000])["MASTER_PORT"] == "7000"


def test_it_runs_on_the_oldest_python() -> None:
    source = Path(stellwerk_agent.__file__).with_name("distributed.py").read_text()
    compile(source, "distributed.py", "exec", dont_inherit=True)
    import ast

    ast.parse(source, feature_version=(3, 6))
