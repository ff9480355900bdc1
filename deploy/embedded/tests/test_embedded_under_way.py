"""What `stellwerk down` asks before it stops: which runs go on."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stellwerk_embedded import under_way
from stellwerk_embedded.layout import Layout

RUNS = [
    {"run_id": "one", "kind": "script"},
    {"run_id": "notebook", "kind": "interactive"},
    {"run_id": "two", "kind": "script"},
]


class _Gateway(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        good = self.path == under_way.ASKED and self.headers["Authorization"] == "Bearer t"
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"items": RUNS}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def layout(home: Path, port: int, token: str) -> Layout:
    found = Layout(home)
    home.mkdir(exist_ok=True)
    found.client_file.write_text(json.dumps({"url": f"http://127.0.0.1:{port}", "token": token}))
    return found


def test_runs_with_a_process_are_told(tmp_path: Path, port: int) -> None:
    assert under_way.runs(layout(tmp_path, port, "t")) == ["one", "two"]


def test_where_nobody_tells_there_are_none(tmp_path: Path, port: int) -> None:
    assert under_way.runs(Layout(tmp_path / "never-started")) == []
    assert under_way.runs(layout(tmp_path, 9, "t")) == []
    assert under_way.runs(layout(tmp_path, port, "wrong")) == []
