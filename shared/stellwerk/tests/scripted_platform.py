"""A scripted platform: the REST API in memory under a real HTTP server on loopback."""

import asyncio
import hashlib
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import scripted_runs
import scripted_things
import uvicorn
from scripted_answers import NOW, problem
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from stellwerk import api
from stellwerk.ids import new_id
from stellwerk.log_names import STD_LOG, put_aside

TOKEN = "token-for-tests"


@dataclass
class Fault:
    """What the next ``times`` requests to ``path`` meet: a status, or a cut connection."""

    path: str
    status: int = 0
    times: int = 1
    retry_after: str = "0"
    after_bytes: int = 0


@dataclass
class ScriptedRun:
    view: api.RunView
    events: list[api.RunEventView] = field(default_factory=list)
    logs: dict[str, bytes] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    generation: int = 0
    metrics: list[api.MetricPoint] = field(default_factory=list)


class Platform:
    """State and faults; tests read and change both from their own thread."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.runs: dict[str, ScriptedRun] = {}
        self.datasets: dict[str, dict[str, Any]] = {}
        self.environments: list[api.EnvironmentView] = []
        self.build_log = b""
        self.build_state = "ready"
        self.built_before = False
        self.compute: dict[str, api.ComputeView] = {}
        self.models: list[tuple[api.ModelView, dict[str, str]]] = []
        self.datastore: dict[str, str] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._asked = threading.Condition()
        self.queries: list[str] = []
        self.faults: list[Fault] = []
        self.on_submit: Any = None
        self._socket = _listening(0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._start()

    # --- for tests ----------------------------------------------------------------------------

    def event(self, run: str, status: str, type_: str = "", **more: Any) -> None:
        scripted = self.runs[run]
        sequence = len(scripted.events) + 1
        attempt = more.pop("attempt", scripted.view.attempt)
        event = api.RunEventView(
            sequence=sequence, type=type_ or f"Run{status}", time=NOW, status=status,
            attempt=attempt, message=more.pop("message", ""), phases=more.pop("phases", {}),
        )  # fmt: skip
        scripted.events.append(event)
        change = {
            "status": status,
            "sequence": sequence,
            "attempt": attempt,
            "phases": event.phases,
            **more,
        }
        scripted.view = scripted.view.model_copy(update=change)
        self._notify()

    def print(self, run: str, data: bytes, path: str = "user_logs/std_log.txt") -> None:
        scripted = self.runs[run]
        scripted.logs[path] = scripted.logs.get(path, b"") + data
        self._notify()

    def retry(self, run: str) -> None:
        """A new attempt: its log begins anew."""
        logs = self.runs[run].logs
        logs[put_aside(STD_LOG, self.runs[run].view.attempt)] = logs.pop(STD_LOG)
        self.runs[run].closed.clear()
        self.runs[run].generation += 1
        attempt = self.runs[run].view.attempt + 1
        self.event(run, "Queued", "RunRetrying")
        self.event(run, "Starting", "RunAssigned", attempt=attempt)

    def close_log(self, run: str, path: str = "user_logs/std_log.txt") -> None:
        self.runs[run].logs.setdefault(path, b"")
        self.runs[run].closed.add(path)
        self._notify()

    def complete(self, run: str, log: bytes = b"hello\n") -> None:
        """All of an ordinary run at once."""
        self.event(run, "Preparing")
        self.event(run, "Queued", phases={"preparing": 1.0})
        self.event(run, "Starting", "RunAssigned", attempt=1, phases={"preparing": 1.0})
        self.event(run, "Running", "RunStarted", phases={"preparing": 1.0, "starting": 0.5})
        self.print(run, log)
        self.close_log(run)
        phases = {"preparing": 1.0, "starting": 0.5, "running": 2.0, "post_processing": 0.1}
        self.event(run, "Finalizing", phases=phases)
        self.event(run, "Completed", phases=phases)

    def blob(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def add_run(self, experiment: str = "e", **more: Any) -> str:
        run = more.pop("run_id", new_id())
        self.runs[run] = ScriptedRun(
            api.RunView(
                run_id=run, experiment=experiment, status="NotStarted", target="local",
                submitted_at=NOW, **more,
            )
        )  # fmt: skip
        return run

    def calls(self, method: str, path: str) -> list[dict[str, str]]:
        return [headers for m, p, headers in self.requests if m == method and p == path]

    def await_calls(self, method: str, path: str, number: int) -> None:
        """Wait until so many of these requests have come in all."""
        with self._asked:
            come = self._asked.wait_for(lambda: len(self.calls(method, path)) >= number, 30)
        assert come, (method, path, number)

    def restart(self) -> None:
        """Break every connection and serve again on the same port."""
        self.stop()
        self._socket = _listening(int(self.url.rpartition(":")[2]))
        self._start()

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._notify()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._socket.close()

    # --- the server ---------------------------------------------------------------------------

    def _start(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        started = threading.Event()
        config = uvicorn.Config(
            self._guarded, log_level="critical", lifespan="off", ws="none", interface="asgi3"
        )
        self._server = uvicorn.Server(config)

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._pulse = asyncio.Event()
            started.set()
            await self._server.serve(sockets=[self._socket])

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._app = Starlette(routes=self._routes())
        self._thread.start()
        assert started.wait(10)

    def _routes(self) -> list[Route]:
        tables = (*scripted_runs.ROUTES, *scripted_things.ROUTES)
        return [
            Route(
                path if path.startswith("/store") else "/api/v1" + path,
                handler(self),
                methods=[method],
            )
            for path, handler, method in tables
        ]

    def _notify(self) -> None:
        def pulse() -> None:
            self._pulse.set()
            self._pulse = asyncio.Event()

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(pulse)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
        path = scope["path"].removeprefix("/api/v1")
        with self._asked:
            self.requests.append((scope["method"], path, headers))
            self._asked.notify_all()
        self.queries.append(scope["query_string"].decode())
        fault = next((f for f in self.faults if f.times and re.fullmatch(f.path, path)), None)
        if fault:
            fault.times -= 1
            if fault.status:
                refusal = problem(fault.status, "scripted", "as scripted")
                refusal.headers["Retry-After"] = fault.retry_after
                await refusal(scope, receive, send)
                return
            await self._cut(fault, scope, receive, send)
            return
        if scope["path"].startswith("/store/"):
            if "authorization" in headers:
                await Response("no token here", status_code=400)(scope, receive, send)
                return
        elif headers.get("authorization") != f"Bearer {TOKEN}":
            await problem(401, "auth.required", "wrong token")(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _cut(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request happen, but break the connection after some bytes of the answer."""
        left = fault.after_bytes

        async def cutting(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                kept = [(k, v) for k, v in message["headers"] if k != b"content-length"]
                message = {**message, "headers": [*kept, (b"content-length", b"1000000")]}
            else:
                body = message.get("body", b"")[:left]
                left -= len(body)
                await send({"type": "http.response.body", "body": body, "more_body": left > 0})
                if left <= 0:
                    raise ConnectionError("cut as scripted")
                return
            await send(message)

        await self._app(scope, receive, cutting)

    async def changed(self) -> None:
        await self._pulse.wait()


def _listening(port: int) -> socket.socket:
    # Named, because asyncio sets TCP_NODELAY only on sockets that say they are TCP.
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(("127.0.0.1", port))
    return opened
