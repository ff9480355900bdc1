"""Tokens of runs: what they open, and everything that they do not."""

import base64
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from gateway_history import NOW
from gateway_setup import Gateway, GatewayFactory, Services

from stellwerk.api import RunView
from stellwerk.errors import NotFoundError, ServiceUnavailableError
from stellwerk_gateway.replies import AncestorsReply
from stellwerk_kit.run_tokens import RunClaims, issue

KEY = b"k" * 64
CHILD, OTHER = "child1", "other1"
CLAIMS = RunClaims("run1", 2, "default", 4_000_000_000)
RUN = {"experiment": "e", "spec": {"kind": "interactive"}}


class History:
    """Answers about the runs of these tests."""

    def __init__(self) -> None:
        self.run = RunView(
            run_id="run1",
            experiment="e",
            status="Running",
            target="local",
            submitted_at=NOW,
            attempt=2,
        )
        self.away = False

    async def get(self, request: dict[str, Any]) -> RunView:
        if self.away:
            raise ServiceUnavailableError("away", code="history.down")
        if request["run_id"] not in {"run1", CHILD, OTHER}:
            raise NotFoundError("none", code="run.not_found")
        return self.run.model_copy(update={"run_id": request["run_id"]})

    async def ancestors(self, request: dict[str, Any]) -> AncestorsReply:
        return AncestorsReply(run_ids=("run1",) if request["run_id"] == CHILD else ())


@pytest_asyncio.fixture
async def history(services: Services) -> History:
    history = History()
    await services.on("history", "run-get", history.get)
    await services.on("history", "run-ancestors", history.ancestors)

    async def patched(request: dict[str, Any]) -> RunView:
        return await history.get(request)

    await services.on("history", "run-patch", patched)
    return history


@pytest_asyncio.fixture
async def guarded(gateway_factory: GatewayFactory, tmp_path: Path, history: History) -> Gateway:
    path = tmp_path / "run.key"
    path.write_bytes(KEY)
    return await gateway_factory(run_token_key=path, run_token_grace_s=5)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def status(gateway: Gateway, token: str, method: str = "GET", path: str = "/runs/run1", **options: Any) -> int:  # fmt: skip
    answer = await gateway.stranger.request(
        method, f"/api/v1{path}", headers=bearer(token), **options
    )
    return answer.status_code


async def test_a_valid_token_reads_and_writes_its_own(guarded: Gateway) -> None:
    token = issue(KEY, CLAIMS)
    patch = {"tags": {"a": "b"}}
    assert await status(guarded, token) == 200
    assert await status(guarded, token, path=f"/runs/{OTHER}") == 200
    for run in ("run1", CHILD):
        assert await status(guarded, token, "PATCH", f"/runs/{run}", json=patch) == 200
    submitted = await guarded.stranger.post("/api/v1/runs", headers=bearer(token), json=RUN)
    assert submitted.status_code == 202
    assert submitted.json()["parent_run_id"] == "run1"
    assert submitted.json()["submitted_by"] == "run run1"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", f"/runs/{OTHER}", {"tags": {"a": "b"}}),
        ("POST", f"/runs/{OTHER}/end", {"status": "Completed"}),
        ("POST", f"/runs/{OTHER}/cancel", None),
        ("POST", f"/runs/{OTHER}/records",
         {"writer": "w", "first": 0, "records": [{"k": "metric", "n": "a", "v": 1}]}),
        ("POST", "/runs", {**RUN, "parent_run_id": OTHER}),
        ("POST", "/models", {"name": "m", "run_id": OTHER}),
    ],
)  # fmt: skip
async def test_a_foreign_run_is_answered_like_one_that_does_not_exist(
    guarded: Gateway, method: str, path: str, body: Any
) -> None:
    token = issue(KEY, CLAIMS)
    assert await status(guarded, token, method, path, json=body) == 404


async def test_what_a_run_may_not_do(guarded: Gateway) -> None:
    token = issue(KEY, CLAIMS)
    for method, path, body in (
        ("POST", "/compute", {"name": "c", "max_nodes": 1}),
        ("DELETE", "/compute/c", None),
        ("POST", "/environments", {"name": "e", "definition": {}}),
        ("POST", "/environments/prune", {"max_bytes": 0}),
        ("DELETE", "/datasets/by-name/d", None),
        ("DELETE", "/models/m/versions/1", None),
        ("PUT", "/secrets/s", {"value": "v"}),
        ("POST", "/datastores/workspaceblobstore/files",
         {"entries": [{"path": "a", "size": 1, "sha256": "a" * 64}], "overwrite": True}),
    ):  # fmt: skip
        assert await status(guarded, token, method, path, json=body) == 403, (method, path)


async def test_tokens_that_are_not_good_are_all_answered_the_same(guarded: Gateway) -> None:
    good = issue(KEY, CLAIMS)
    head, claims, signature = good.split(".")
    other = json.loads(base64.urlsafe_b64decode(claims + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**other, "run_id": OTHER}).encode()).decode()
    bad = {
        "another key": issue(b"x" * 64, CLAIMS),
        "expired": issue(KEY, replace(CLAIMS, expires_at=1)),
        "another workspace": issue(KEY, replace(CLAIMS, workspace="elsewhere")),
        "an earlier attempt": issue(KEY, replace(CLAIMS, attempt=1)),
        "no such run": issue(KEY, replace(CLAIMS, run_id="nobody")),
        "other claims": f"{head}.{forged.rstrip('=')}.{signature}",
        "no signature": f"{head}.{claims}.",
        "cut": good[:-1],
        "only the prefix": "swr1.",
    }
    answers = set()
    for name, token in bad.items():
        answer = await guarded.stranger.get("/api/v1/runs/run1", headers=bearer(token))
        assert answer.status_code == 401, name
        answers.add(answer.text)
    assert len(answers) == 1
    assert await status(guarded, good) == 200


async def test_a_token_ends_with_its_run(guarded: Gateway, history: History) -> None:
    now = guarded.runtime.clock.now()
    long_ago, just_now = now - timedelta(seconds=60), now - timedelta(seconds=1)
    history.run = history.run.model_copy(update={"status": "Completed", "ended_at": just_now})
    assert await status(guarded, issue(KEY, CLAIMS)) == 200
    history.run = history.run.model_copy(update={"ended_at": long_ago})
    fresh = replace(CLAIMS, expires_at=CLAIMS.expires_at + 1)  # not the one just seen alive
    assert await status(guarded, issue(KEY, fresh)) == 401


async def test_without_history_nobody_knows(guarded: Gateway, history: History) -> None:
    history.away = True
    assert await status(guarded, issue(KEY, CLAIMS)) == 503


async def test_a_gateway_without_a_key_accepts_no_run(gateway: Gateway, history: History) -> None:
    assert await status(gateway, issue(KEY, CLAIMS)) == 401
