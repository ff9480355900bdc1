"""The embedded stack as tests use it: started by its own command, talked to like any client.

Raw HTTP and raw NATS on purpose: these tests must not share code with the SDK they stand beside.
"""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import nats
from nats.aio.client import Client

STELLWERK = str(Path(sys.executable).parent / "stellwerk")
TERMINAL = {"Completed", "Failed", "Canceled"}
HERE = {"user_managed": True, "interpreter": sys.executable}
"""An environment definition that uses this interpreter: nothing to build."""


class Stack:
    """One embedded stack in ``home`` on free ports."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.environment = {**os.environ, "STELLWERK_HOME": str(home), **environment}
        self.client_file: dict[str, str] = {}

    def up(self) -> None:
        """Start and wait until ready."""
        done = self.command("up", "--port", "0")
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        self.client_file = json.loads((self.home / "client.json").read_text())

    def down(self) -> None:
        """Stop everything."""
        done = self.command("down")
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``stellwerk …`` as a user would."""
        return subprocess.run(
            [STELLWERK, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def logs(self) -> str:
        """The end of every log file."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}"
            for path in sorted((self.home / "logs").glob("*.log"))
        )

    def processes(self) -> dict[str, int]:
        """Process ids by name, as the supervisor wrote them."""
        state = json.loads((self.home / "supervisor.json").read_text())
        return {
            name: entry["pid"] for name, entry in state["processes"].items() if entry.get("pid")
        }

    def kill(self, name: str) -> None:
        """kill -9 one process of the stack."""
        os.kill(self.processes()[name], signal.SIGKILL)

    def http(self, **options: Any) -> httpx2.Client:
        """A client of the REST API."""
        return httpx2.Client(
            base_url=self.client_file["url"],
            headers={"Authorization": f"Bearer {self.client_file['token']}"},
            follow_redirects=True,
            trust_env=False,
            **{"timeout": 30, **options},
        )

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Client]:
        """A connection to the broker with the user that clients get."""
        client = await nats.connect(
            self.client_file["nats_url"],
            user=self.client_file["nats_user"],
            password=self.client_file["nats_password"],
            inbox_prefix=f"_INBOX_{self.client_file['nats_user']}".encode(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
        )
        try:
            yield client
        finally:
            await client.close()


def request(
    method: str, http: httpx2.Client, path: str, *, deadline_s: float = 60, **options: Any
) -> httpx2.Response:
    """A request that is repeated while the platform is away: 5xx and lost connections."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            answer = http.request(method, f"/api/v1{path}", **options)
            if answer.status_code < 500 or time.monotonic() > end:
                return answer
        except httpx2.TransportError:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def run_body(script: str, *, experiment: str = "test", **spec: Any) -> dict[str, Any]:
    """Body of ``POST /runs`` for one inline script on this interpreter."""
    return {
        "experiment": experiment,
        "spec": {
            "source": {"inline": {"main.py": script}},
            "script": "main.py",
            "environment": HERE,
            **spec,
        },
    }


def submit(http: httpx2.Client, body: dict[str, Any], key: str | None = None) -> str:
    """Submit; returns the run id."""
    headers = {"Idempotency-Key": key} if key else {}
    answer = request("POST", http, "/runs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


def wait_terminal(http: httpx2.Client, run_id: str, deadline_s: float = 60) -> dict[str, Any]:
    """The run's view once it has ended."""
    end = time.monotonic() + deadline_s
    while True:
        answer = request("GET", http, f"/runs/{run_id}")
        view: dict[str, Any] = (
            answer.json() if answer.status_code == 200 else {"status": answer.text}
        )
        if view["status"] in TERMINAL:
            return view
        assert time.monotonic() < end, f"run {run_id} is still {view['status']}: {view}"
        time.sleep(0.05)


def log_text(http: httpx2.Client, run_id: str) -> bytes:
    """The run's log, whole."""
    return request("GET", http, f"/runs/{run_id}/logs/user_logs/std_log.txt").content


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


async def stream_events(client: Client, run_id: str) -> list[tuple[str, int, dict[str, Any]]]:
    """All facts of the run aggregate, from the stream: (verb, sequence, body)."""
    js = client.jetstream()
    subscription = await js.subscribe(f"sw.evt.run.{run_id}.>", ordered_consumer=True)
    found = []
    try:
        while True:
            message = await asyncio.wait_for(subscription.next_msg(timeout=1.0), 2.0)
            number = int(message.headers["ce-sequence"])
            found.append((message.subject.split(".")[4], number, json.loads(message.data)))
    except TimeoutError:
        return found
    finally:
        await subscription.unsubscribe()
