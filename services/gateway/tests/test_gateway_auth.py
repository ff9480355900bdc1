"""Who gets in: tokens, scopes, hosts, addresses to listen on."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from gateway_setup import READER, TOKEN, Gateway, GatewayFactory, Services, write_tokens
from pydantic import ValidationError

from stellwerk_gateway.auth import FailureLimit, TokenFile
from stellwerk_gateway.settings import Settings
from stellwerk_kit.testing import FakeClock

NOW = "2026-11-24T10:00:00Z"
SUBMISSION = {
    "experiment": "x",
    "spec": {"source": {"inline": {"a.py": "1"}}, "script": "a.py"},
}


WRONG_CREDENTIALS: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer nobody's"},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": TOKEN},
    {"Authorization": f"Bearer {hashlib.sha256(TOKEN.encode()).hexdigest()}"},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Cookie": f"token={TOKEN}"},
]


async def test_without_a_right_token_the_answer_is_always_the_same(
    gateway: Gateway, subtests: pytest.Subtests
) -> None:
    for headers in WRONG_CREDENTIALS:
        with subtests.test(headers=headers):
            answer = await gateway.stranger.post("/api/v1/runs", json=SUBMISSION, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="stellwerk"'
            assert answer.json() == {
                "type": "about:blank",
                "title": "Unauthorized",
                "status": 401,
                "detail": "Send a valid token in the header: Authorization: Bearer <token>.",
                "code": "auth.required",
            }


async def test_two_authorization_headers_are_none(gateway: Gateway) -> None:
    pair = ("Authorization", f"Bearer {TOKEN}")
    answer = await gateway.stranger.get("/api/v1/info", headers=[pair, pair])
    assert answer.status_code == 401


async def test_a_reader_may_read_and_nothing_else(gateway: Gateway) -> None:
    headers = {"Authorization": f"Bearer {READER}"}
    read = await gateway.stranger.get("/api/v1/info", headers=headers)
    written = await gateway.stranger.post("/api/v1/runs", json=SUBMISSION, headers=headers)
    assert read.status_code == 200
    assert (written.status_code, written.json()["code"]) == (403, "auth.scope")


async def test_a_reader_sees_no_value_of_a_secret(gateway: Gateway, services: Services) -> None:
    async def answer(_: dict[str, Any]) -> dict[str, Any]:
        return {"name": "a", "value": "hush", "created_at": NOW, "updated_at": NOW}

    async def empty(_: dict[str, Any]) -> dict[str, Any]:
        return {"items": []}

    await services.on("keyvault", "secret-get", answer)
    await services.on("keyvault", "secret-list", empty)
    headers = {"Authorization": f"Bearer {READER}"}
    for path in ("/api/v1/secrets/a", "/api/v1/secrets%2Fa"):
        refused = await gateway.stranger.get(path, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "auth.scope")
    listed = await gateway.stranger.get("/api/v1/secrets", headers=headers)
    assert listed.status_code == 200
    allowed = await gateway.client.get("/secrets/a")
    assert (allowed.json()["value"], allowed.headers["cache-control"]) == ("hush", "no-store")


WRONG_SECRETS = [
    b'{"value": ["hunter2"]}',
    b'{"value": {"a": "hunter2"}}',
    b'"hunter2"',
    b'["hunter2"]',
    b'{"value": null, "valu": "hunter2"}',
    b'{"valu": "hunter2"}',
    b'{"value": "hunter2"',
    b'{"value": "hunter2", "value": "hunter2"}',
    b'{"value": "hunter2\\ud800"}',
]


async def test_a_refused_secret_is_not_repeated(
    gateway: Gateway, subtests: pytest.Subtests, capfd: pytest.CaptureFixture[str]
) -> None:
    headers = {"Content-Type": "application/json"}
    for body in WRONG_SECRETS:
        with subtests.test(body=body):
            answer = await gateway.client.put("/secrets/a", content=body, headers=headers)
            assert answer.status_code in {400, 422}, answer.text
            assert "hunter2" not in answer.text
    wrong_type = await gateway.client.put("/secrets/a", content=b"hunter2")
    assert (wrong_type.status_code, "hunter2" in wrong_type.text) == (415, False)
    assert "hunter2" not in "".join(capfd.readouterr())


async def test_the_eleventh_wrong_token_in_a_minute_is_429_and_right_ones_still_pass(
    gateway: Gateway,
) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    answers = [await gateway.stranger.get("/api/v1/info", headers=wrong) for _ in range(12)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    assert answers[-1].headers["retry-after"] == "60"
    assert answers[-1].json()["code"] == "auth.too_many_failures"
    assert (await gateway.client.get("/info")).status_code == 200


def test_failures_are_forgotten_after_a_minute_and_addresses_are_bounded() -> None:
    clock = FakeClock()
    limit = FailureLimit(clock)
    assert [limit.failed("a") for _ in range(11)] == [False] * 10 + [True]
    assert not limit.failed("b")
    clock.advance(61)
    assert not limit.failed("a")
    for number in range(10_000):
        limit.failed(str(number))
    assert len(limit._failures) <= 4096


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("[::2]:80", 421),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:99", 200),
        ("[::1]:80", 200),
        ("train.lab", 200),
    ],
)
async def test_only_known_hosts_are_served(
    gateway_factory: GatewayFactory, host: str, status: int
) -> None:
    gateway = await gateway_factory(allowed_hosts=("Train.lab",))
    headers = {"Host": host, "Origin": "http://evil.example"}
    answer = await gateway.client.get("/info", headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == "host.unknown"


PAGES: list[str] = [
    "/",
    "/docs",
    "/docs.css",
    "/openapi.json",
    "/runs/abc",
    "/web/run.js",
    "/api/v1/info",
    "/x",
]


async def test_every_answer_has_the_security_headers(
    gateway: Gateway, subtests: pytest.Subtests
) -> None:
    for path in PAGES:
        with subtests.test(path=path):
            answer = await gateway.stranger.get(path)
            assert answer.headers["x-content-type-options"] == "nosniff"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "set-cookie" not in answer.headers
            assert "server" not in answer.headers


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_it_does_not_listen_off_loopback_unless_told(tmp_path: Path, host: str) -> None:
    values: dict[str, Any] = {"tokens_file": tmp_path / "t", "api_host": host}
    with pytest.raises(ValidationError, match="STELLWERK_ALLOW_REMOTE"):
        Settings(**values)
    assert Settings(**values, allow_remote=True).api_host == host


def test_it_does_not_start_without_tokens(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="tokens_file"):
        Settings()
    with pytest.raises(ValueError, match="STELLWERK_TOKENS_FILE"):
        TokenFile(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '[{"name": "a"}]',
        '[{"name": "a", "sha256": "xyz", "scope": "read"}]',
        json.dumps([{"name": "a", "sha256": hashlib.sha256(b"").hexdigest(), "scope": "read"}]),
        json.dumps([{"name": "a", "sha256": "0" * 64, "scope": "root"}]),
        json.dumps([{"name": "a", "sha256": "0" * 64, "scope": "read", "token": "oops"}]),
    ],
)
def test_a_bad_tokens_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="STELLWERK_TOKENS_FILE"):
        TokenFile(path)


async def test_tokens_are_rotated_without_a_restart(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "tokens.json")
    tokens = TokenFile(path)
    entry = {"name": "new", "sha256": hashlib.sha256(b"fresh").hexdigest(), "scope": "admin"}
    path.write_text("[")
    await tokens.refresh()
    assert tokens.find(TOKEN.encode()) is not None, "a bad file changes nothing"
    path.write_text(json.dumps([entry]))
    os.utime(path, ns=(1, 1))
    await tokens.refresh()
    assert tokens.find(TOKEN.encode()) is None
    found = tokens.find(b"fresh")
    assert found is not None
    assert found.may("POST", "/api/v1/runs")
