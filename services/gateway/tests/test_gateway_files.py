"""Bytes go straight between clients and the object store; the gateway only says where."""

import hashlib
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from gateway_setup import Gateway, GatewayFactory, Services

from stellwerk.answers import FileList
from stellwerk.api import DatasetFileView, Page, RunFileView
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_gateway.replies import FilesReply
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.rpc import RawReply
from stellwerk_kit.testing import S3Server

DATA = b"weights \x00\xff" * 100
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest_asyncio.fixture
async def stored(
    gateway_factory: GatewayFactory, s3_settings: dict[str, Any], objects: ObjectStore
) -> Gateway:
    """A gateway on a real object store."""
    return await gateway_factory(**s3_settings)


def entry(path: str = "train.py", data: bytes = DATA) -> dict[str, Any]:
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def fetch(location: str) -> httpx2.Response:
    async with httpx2.AsyncClient() as anybody:
        return await anybody.get(location)


async def test_a_blob_is_planned_uploaded_and_then_no_more_missing(stored: Gateway) -> None:
    ref = {"sha256": DIGEST, "size": len(DATA)}
    answer = await stored.client.post("/blobs", json={"blobs": [ref, ref]})
    (upload,) = answer.json()["missing"]
    assert upload["sha256"] == DIGEST
    async with httpx2.AsyncClient() as anybody:
        assert (await anybody.put(upload["url"], content=DATA)).status_code == 200
    again = await stored.client.post("/blobs", json={"blobs": [ref]})
    assert again.json() == {"missing": []}
    longer = await stored.client.post("/blobs", json={"blobs": [{**ref, "size": 1}]})
    assert len(longer.json()["missing"]) == 1, "another size is not this blob"


async def test_a_snapshot_needs_its_blobs_and_then_runs_can_use_it(
    stored: Gateway, objects: ObjectStore
) -> None:
    manifest = {"entries": [entry(), entry("lib/net.py")]}
    missing = await stored.client.post("/snapshots", json={"manifest": manifest})
    assert (missing.status_code, missing.json()["code"]) == (422, "blob.missing")
    assert "train.py" in missing.json()["detail"]
    await objects.put_bytes(DATA)
    made = await stored.client.post("/snapshots", json={"manifest": manifest})
    assert made.status_code == 201
    assert made.json()["files"] == 2
    digest = made.json()["digest"]
    assert (await objects.get_manifest(digest)).digest() == digest

    def run(script: str, snapshot: str = digest) -> dict[str, Any]:
        return {"experiment": "e", "spec": {"source": {"snapshot": snapshot}, "script": script}}

    for script in ("train.py", "./train.py", "lib/net.py"):
        assert (await stored.client.post("/runs", json=run(script))).status_code == 202
    for script in ("trian.py", "lib", "../train.py", "/etc/passwd"):
        refused = await stored.client.post("/runs", json=run(script))
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (422, "source.entrypoint")
        assert problem["field"] == "spec.script"
        assert "which has train.py, lib/net.py." in problem["detail"]
    unknown = await stored.client.post("/runs", json=run("train.py", "0" * 64))
    assert (unknown.status_code, unknown.json()["code"]) == (422, "source.snapshot")
    no_manifest = await stored.client.post("/runs", json=run("train.py", DIGEST))
    assert (no_manifest.status_code, no_manifest.json()["code"]) == (422, "source.snapshot")


@pytest.mark.parametrize(
    "paths",
    [
        [], ["../x"], ["/x"], ["a\\b"], ["a\x00b"], ["a", "a"], ["a", "a/b"], ["u\u0308", "\u00fc"],
        ["C:\\x"], ["a\nb"], ["x" * 256], ["/".join("d" * 33)], ["a/./b"], ["a//b"],
    ],
)  # fmt: skip
async def test_ambiguous_or_hostile_snapshots_are_refused(
    gateway: Gateway, paths: list[str]
) -> None:
    manifest = {"entries": [entry(path) for path in paths]}
    answer = await gateway.client.post("/snapshots", json={"manifest": manifest})
    assert answer.status_code == 422
    assert answer.json()["field"].startswith("manifest")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": -1}, "manifest.entries[0].size"),
        ({"size": 1.5}, "manifest.entries[0].size"),
        ({"size": 10**12}, "manifest"),
        ({"size": 2**70}, "manifest"),
        ({"executable": "setuid"}, "manifest.entries[0].executable"),
        ({"mode": 0o4755}, "manifest.entries[0].mode"),
        ({"mtime": -1}, "manifest.entries[0].mtime"),
        ({"link": "/etc/passwd"}, "manifest.entries[0].link"),
        ({"sha256": "x"}, "manifest.entries[0].sha256"),
    ],
)
async def test_what_is_no_plain_file_is_refused(
    stored: Gateway, changes: dict[str, Any], field: str
) -> None:
    manifest = {"entries": [{**entry("a"), **changes}]}
    answer = await stored.client.post("/snapshots", json={"manifest": manifest})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"].startswith(field)


async def test_a_file_of_a_run_is_fetched_from_the_store_under_its_name(
    stored: Gateway, services: Services, objects: ObjectStore
) -> None:
    await objects.put_bytes(DATA)
    name = 'outputs/model "1" \u00fc.keras'

    names = sorted([name, "outputs/a", "outputs/model", "z"])

    async def run_files(request: dict[str, Any]) -> FilesReply:
        """One file a page."""
        left = [path for path in names if path > request.get("after", "")]
        files = tuple(RunFileView(path=p, size=len(DATA), sha256=DIGEST) for p in left[:1])
        return FilesReply(files=files, next=left[0] if len(left) > 1 else None)

    await services.on("history", "run-files", run_files)
    listed = (await stored.client.get("/runs/abc/files")).json()["files"]
    assert [file["path"] for file in listed] == names
    answer = await stored.client.get(f"/runs/abc/files/{name}")
    told = await stored.client.get(f"/runs/abc/files/{name}?redirect=false")
    assert (told.status_code, (await fetch(told.json()["url"])).content) == (200, DATA)
    assert answer.status_code == 307
    file = await fetch(answer.headers["location"])
    assert file.content == DATA
    disposition = file.headers["content-disposition"]
    assert disposition.startswith("attachment; filename*=UTF-8''model%20%221%22%20%C3%BC.keras")
    for path in ("outputs/other", "outputs", "zz", "a"):
        missing = await stored.client.get(f"/runs/abc/files/{path}")
        assert (missing.status_code, missing.json()["code"]) == (404, "file.not_found")
    for path in ("..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "outputs%2f..%2f..%2fx"):
        refused = await stored.client.get(f"/runs/abc/files/{path}")
        assert (refused.status_code, refused.json()["code"]) == (422, "path.invalid")


async def test_a_log_that_still_grows_is_sent_by_the_gateway(
    stored: Gateway, services: Services
) -> None:
    async def run_files(_: dict[str, Any]) -> FileList:
        return FileList(files=(RunFileView(path="user_logs/std_log.txt", size=5),))

    async def run_get(_: dict[str, Any]) -> dict[str, Any]:
        return {
            "run_id": "abc", "experiment": "e", "status": "Running", "target": "local",
            "submitted_at": "2026-01-01T00:00:00Z",
        }  # fmt: skip

    async def log_read(request: dict[str, Any]) -> RawReply:
        body = b"<b>hello"[request["offset"] :]
        return RawReply(body, {"Sw-Next-Offset": "8", "Sw-Closed": "0", "Sw-Attempt": "1"})

    await services.on("history", "run-files", run_files)
    await services.on("history", "run-get", run_get)
    await services.on("history", "log-read", log_read)
    answer = await stored.client.get("/runs/abc/files/user_logs/std_log.txt")
    assert (answer.status_code, answer.content) == (200, b"<b>hello")
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["content-type"].startswith("text/plain")


async def test_one_file_of_a_dataset_is_asked_for(
    stored: Gateway, services: Services, objects: ObjectStore
) -> None:
    await objects.put_bytes(DATA)
    files = {
        "web.csv": DatasetFileView(path="web.csv", url="https://example.org/web.csv"),
        "x/y.bin": DatasetFileView(path="x/y.bin", size=len(DATA), sha256=DIGEST),
    }

    async def dataset_files(request: dict[str, Any]) -> Page[DatasetFileView]:
        found = files.get(request["path"])
        return Page[DatasetFileView](items=() if found is None else (found,))

    await services.on("dataset", "dataset-files", dataset_files)
    answer = await stored.client.get("/datasets/d1/files/x/y.bin")
    assert answer.status_code == 307
    assert (await fetch(answer.headers["location"])).content == DATA
    unread = await stored.client.get("/datasets/d1/files/web.csv")
    assert (unread.status_code, unread.json()["code"]) == (409, "dataset.not_read")
    missing = await stored.client.get("/datasets/d1/files/none")
    assert (missing.status_code, missing.json()["code"]) == (404, "file.not_found")


async def test_files_of_models_are_fetched_from_the_store(
    stored: Gateway, services: Services, objects: ObjectStore
) -> None:
    await objects.put_bytes(DATA)

    async def model_files(request: dict[str, Any]) -> FileList:
        assert request == {"name": "mnist", "version": 2}
        return FileList(files=(RunFileView(path="model.keras", size=len(DATA), sha256=DIGEST),))

    await services.on("model-registry", "model-files", model_files)
    answer = await stored.client.get("/models/mnist/versions/2/files/model.keras")
    assert answer.status_code == 307
    assert (await fetch(answer.headers["location"])).content == DATA


async def test_without_an_object_store_uploads_are_503_and_inline_runs_go_on(
    gateway_factory: GatewayFactory, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.precheck.BEST_EFFORT_S", 0.2)
    gateway = await gateway_factory(s3_endpoint="127.0.0.1:9", s3_credentials=s3_server.credentials)
    ref = {"sha256": DIGEST, "size": len(DATA)}
    answer = await gateway.client.post("/blobs", json={"blobs": [ref]})
    assert (answer.status_code, answer.json()["code"]) == (503, "storage.down")
    for source in ({"inline": {"a.py": "1"}}, {"snapshot": "0" * 64}):
        spec = {"source": source, "script": "a.py"}
        accepted = await gateway.client.post("/runs", json={"experiment": "e", "spec": spec})
        assert accepted.status_code == 202


def test_manifests_name_each_snapshot_for_ever() -> None:
    first = Manifest(entries=(ManifestEntry(**entry("a")), ManifestEntry(**entry("b"))))
    second = Manifest(entries=(ManifestEntry(**entry("b")), ManifestEntry(**entry("a"))))
    assert first.digest() == second.digest()


async def test_who_asks_inside_gets_addresses_inside(
    gateway_factory: GatewayFactory, s3_settings: dict[str, Any], objects: ObjectStore
) -> None:
    """A run in the platform's network cannot reach the store's public address, nor we the other."""
    public = {"s3_public_endpoint": "files.example.org"}
    names = {"allowed_hosts": ("inside",), "inside_hosts": ("inside",)}
    gateway = await gateway_factory(**s3_settings, **public, **names)
    asked = {"json": {"blobs": [{"sha256": DIGEST, "size": len(DATA)}]}}
    there = (await gateway.client.post("/blobs", **asked)).json()["missing"][0]["url"]
    assert there.startswith("http://files.example.org/")
    headers = {"Host": "inside:8470"}
    answer = await gateway.client.post("/blobs", **asked, headers=headers)
    here = answer.json()["missing"][0]["url"]
    assert here.startswith(f"http://{s3_settings['s3_endpoint']}/")
    async with httpx2.AsyncClient() as anybody:
        assert (await anybody.put(here, content=DATA)).status_code == 200
