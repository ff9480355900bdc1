"""A registry that wants a token, one that fails in the middle. No engine, no real registry."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from docker.errors import DockerException

from stellwerk_environment_build.image_engine import ImageSettings
from stellwerk_environment_build.image_registry import STORE_S, TIMEOUT_S, Registry
from stellwerk_environment_build.layer_archive import LayerArchive
from stellwerk_kit.registry_logins import RegistryLogins
from stellwerk_kit.testing.servers import free_port

LOGIN = {"username": "u", "password": "right-one"}
BASIC = "Basic " + base64.b64encode(b"u:right-one").decode()


class Place(ThreadingHTTPServer):
    """Takes uploads from who has a token; gives one to who knows the password.

    Tokens allow what they were asked for, and end after ``answers`` answers. ``named``: it says
    which digest a manifest has. ``rude``: the next layer's token has ended, and it hangs up on it.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.sent = b""
        self.refuses = False
        self.named = True
        self.rude = False
        self.answers = 1000
        self.token, self.allowed, self.left = "", set[str](), 0

    def give_token(self, actions: str) -> str:
        self.token, self.allowed, self.left = (
            f"t{len(self.asked)}", set(actions.split(",")), self.answers,
        )  # fmt: skip
        return self.token

    def takes(self, given: str, action: str) -> bool:
        self.left -= 1
        return given == f"Bearer {self.token}" and action in self.allowed and self.left >= 0


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
        if self.command == "PATCH" and place.rude:
            place.rude, place.token, self.close_connection = False, "", True
            return self._say(401, WWW_Authenticate=f'Bearer realm="http://{place.host}/token"')
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        if self.path.startswith("/token?"):
            asked = parse_qs(urlsplit(self.path).query)
            name, _, actions = asked["scope"][0].rpartition(":")
            right = given == BASIC and asked["service"] == ["here"]
            right = right and name == "repository:stellwerk/environment"
            token = place.give_token(actions) if right else "none"
            return self._say(200, json.dumps({"token": token}).encode())
        action = {"HEAD": "pull", "GET": "pull", "DELETE": "delete"}.get(self.command, "push")
        if not place.takes(given, action):
            asks = "pull,push" if action == "push" else action
            challenge = (
                f'Bearer realm="http://{place.host}/token",service="here",'
                f'scope="repository:stellwerk/environment:{asks}"'
            )
            return self._say(401, WWW_Authenticate=challenge)
        if self.command == "PATCH" and place.refuses:
            return self._say(500, b"no space left on device")
        if self.command == "DELETE":
            return self._say(202)
        if "/manifests/" in self.path:
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            named = {"Docker_Content_Digest": digest} if place.named else {}
            return self._say(201, **named)
        place.sent += body
        if self.command in {"POST", "PATCH"}:
            return self._say(202, Location="/v2/stellwerk/environment/blobs/uploads/1?state=2")
        if self.command == "PUT":
            place.blobs[self.path.partition("digest=")[2]] = place.sent
            return self._say(201)
        return self._say(200 if self.path.rpartition("/")[2] in place.blobs else 404)

    do_HEAD = do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - names it looks for

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


def test_a_token_is_for_all_that_any_thread_does(place: Place, layer: LayerArchive) -> None:
    """One thread asks whether a layer is there while another one sends its own."""
    there = registry(place, **LOGIN)
    assert not there.has(f"sha256:{'0' * 64}")
    blob = there.upload(layer, lambda _: None)
    there.delete_manifest(blob.digest)
    assert not there.has(f"sha256:{'0' * 64}")
    there.upload(layer, lambda _: None)
    there.close()
    assert blob.digest in place.blobs
    assert [each for each in place.asked if "token" in each] == ["GET /token"] * 2


def test_a_token_that_ends_in_the_middle_is_renewed(place: Place, layer: LayerArchive) -> None:
    """After each answer; what it refused is sent anew, and counts once."""
    place.answers = 1
    told: list[int] = []
    there = registry(place, **LOGIN)
    blob = there.upload(layer, told.append)
    there.close()
    assert place.blobs == {blob.digest: b"".join(layer)}
    assert sum(told) == blob.size
    assert [each.partition(" ")[0] for each in place.asked] == [
        *("POST", "GET", "POST"), *("PATCH", "GET", "PATCH"), *("PUT", "GET", "PUT"),
    ]  # fmt: skip


def test_who_refuses_a_layer_before_it_was_read_gets_it_anew(place: Place, tmp_path: Path) -> None:
    """That the token has ended is then not to be read: the connection is gone."""
    place.rude = True
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 << 20)
    large = LayerArchive(tmp_path, ("large",))
    told: list[int] = []
    there = registry(place, **LOGIN)
    blob = there.upload(large, told.append)
    there.close()
    assert list(place.blobs) == [blob.digest]
    assert sum(told) == blob.size == len(place.blobs[blob.digest])


def test_who_gives_tokens_is_asked_past_proxies_as_the_registry_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    there = registry(place, **LOGIN)
    assert not there.has(f"sha256:{'0' * 64}")
    there.close()


@pytest.mark.parametrize("named", [True, False])
def test_a_manifest_has_a_digest_though_the_registry_names_none(place: Place, named: bool) -> None:
    place.named = named
    there = registry(place, **LOGIN)
    data = json.dumps({"layers": []}).encode()
    assert there.put_manifest("t", {"layers": []}) == f"sha256:{hashlib.sha256(data).hexdigest()}"
    there.close()


def test_a_registry_has_long_to_store_a_layer(
    place: Place, layer: LayerArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads all of one before it answers; all else it answers at once."""
    waits: dict[str, float] = {}
    request = requests.Session.request

    def told(session: requests.Session, verb: str, url: str, **options: Any) -> Any:
        waits[verb] = options["timeout"][1]
        return request(session, verb, url, **options)

    monkeypatch.setattr(requests.Session, "request", told)
    place.give_token("pull,push")
    there = registry(place, **LOGIN)
    there._session.headers["Authorization"] = f"Bearer {place.token}"
    there.upload(layer, lambda _: None)
    there.close()
    assert waits == {"POST": TIMEOUT_S, "PATCH": STORE_S, "PUT": STORE_S}
    assert STORE_S >= 10 * TIMEOUT_S


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
