"""A registry that wants a token, one that fails in the middle. No engine, no real registry."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from docker.errors import DockerException

from stellwerk_environment_build.image_engine import ImageSettings
from stellwerk_environment_build.image_registry import Registry
from stellwerk_environment_build.layer_archive import LayerArchive
from stellwerk_kit.registry_logins import RegistryLogins

LOGIN = {"username": "u", "password": "right-one"}
BASIC = "Basic " + base64.b64encode(b"u:right-one").decode()


class Place(ThreadingHTTPServer):
    """Takes uploads from who has a token; gives one to who knows the password."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.sent = b""
        self.refuses = False


class Handler(BaseHTTPRequestHandler):
    server: Place

    def _say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _handle(self) -> None:
        place, given = self.server, self.headers.get("Authorization", "")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        if self.path.startswith("/token?"):
            right = given == BASIC and "service=here" in self.path and "pull%2Cpush" in self.path
            return self._say(200, json.dumps({"token": "t1" if right else "none"}).encode())
        if given != "Bearer t1":
            challenge = (
                f'Bearer realm="http://{place.host}/token",service="here",'
                'scope="repository:stellwerk/environment:pull,push"'
            )
            return self._say(401, WWW_Authenticate=challenge)
        if self.command == "PATCH" and place.refuses:
            return self._say(500, b"no space left on device")
        place.sent += body
        if self.command in {"POST", "PATCH"}:
            return self._say(202, Location="/v2/stellwerk/environment/blobs/uploads/1?state=2")
        if self.command == "PUT":
            place.blobs[self.path.partition("digest=")[2]] = place.sent
            return self._say(201)
        return self._say(200 if self.path.rpartition("/")[2] in place.blobs else 404)

    do_HEAD = do_GET = do_POST = do_PUT = do_PATCH = _handle  # noqa: N815 - names it looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def place() -> Iterator[Place]:
    with Place() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def layer(tmp_path: Path) -> LayerArchive:
    (tmp_path / "a.py").write_bytes(b"a" * (5 << 20))
    return LayerArchive(tmp_path, ("a.py",))


def registry(place: Place, **login: str) -> Registry:
    logins = RegistryLogins({place.host: login} if login else {})
    return Registry(ImageSettings("base", place.host, logins))


def test_a_layer_goes_there_with_a_token(place: Place, layer: LayerArchive) -> None:
    told: list[int] = []
    there = registry(place, **LOGIN)
    blob = there.upload(layer, told.append)
    there.close()
    assert place.blobs == {blob.digest: b"".join(layer)}
    assert sum(told) == blob.size == len(layer)
    assert [each.partition(" ")[0] for each in place.asked] == [
        "POST", "GET", "POST", "PATCH", "PUT",
    ]  # fmt: skip


@pytest.mark.parametrize("login", [{}, {**LOGIN, "password": "wrong-one"}])
def test_who_has_no_login_is_told_so(place: Place, login: dict[str, str]) -> None:
    there = registry(place, **login)
    with pytest.raises(DockerException, match="401") as caught:
        there.has(f"sha256:{'0' * 64}")
    there.close()
    assert "wrong-one" not in str(caught.value)


def test_what_it_says_when_it_fails_is_kept(place: Place, layer: LayerArchive) -> None:
    place.refuses = True
    there = registry(place, **LOGIN)
    with pytest.raises(DockerException, match="500 no space left on device"):
        there.upload(layer, lambda _: None)
    there.close()
    assert place.blobs == {}


def test_it_may_be_elsewhere_than_for_the_engine(place: Place) -> None:
    settings = ImageSettings(
        "base", "127.0.0.1:9", RegistryLogins({"127.0.0.1:9": LOGIN}),
        registry_url=f"http://{place.host}/",
    )  # fmt: skip
    there = Registry(settings)
    assert not there.has(f"sha256:{'0' * 64}")
    there.close()


@pytest.mark.parametrize(
    ("host", "root"),
    [
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("registry.example.org", "https://registry.example.org"),
    ],
)
def test_only_loopback_is_without_tls(host: str, root: str) -> None:
    assert ImageSettings("base", host).registry_root == root
