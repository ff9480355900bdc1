"""How long an image's Python is waited for; an engine's answers, without an engine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import docker
import pytest
import requests
from docker.models.containers import Container

from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_facts import ended


@pytest.fixture(params=["headers", "silent", "gone"])
def container(request: pytest.FixtureRequest) -> Iterator[tuple[Container, str]]:
    """One that never ends, by an engine that sends headers early or not, or has died."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if request.param == "headers":
                self.send_response(200)
                self.send_header("Content-Length", "20")
                self.end_headers()
                self.wfile.flush()
            if request.param != "gone":
                over.wait(20)
            self.close_connection = True

        def do_GET(self) -> None:
            body = json.dumps({"Id": "c", "State": {"Status": "running"}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        client: Any = docker.DockerClient(
            base_url=f"tcp://127.0.0.1:{server.server_port}", version="1.44"
        )
        one = Container(attrs={"Id": "c"}, client=client, collection=client.containers)
        yield one, request.param
        over.set()
        client.close()
        server.shutdown()
        thread.join()


def test_a_python_that_runs_on_is_the_images_fault(container: tuple[Container, str]) -> None:
    one, engine = container
    if engine == "gone":
        with pytest.raises(requests.ConnectionError):
            ended(one, 0.3)
        return
    with pytest.raises(BuildFailedError) as caught:
        ended(one, 0.3)
    failure = caught.value.failure
    assert (failure.reason, failure.code, failure.retryable) == (
        "your-spec", "env.image_python", False,
    )  # fmt: skip
    assert "does not answer within 0.3 s" in failure.message
