"""Every route asks the verb it should, with the fields it was given; OpenAPI says what it does."""

import re
from typing import Any

import pytest
from gateway_setup import Gateway, Services

from stellwerk.errors import NotFoundError
from stellwerk.runstate import TERMINAL, RunStatus
from stellwerk_gateway import examples, pages
from stellwerk_gateway.problems import MEDIA_TYPE

NOW = "2026-01-01T00:00:00Z"
EMPTY: dict[str, Any] = {"items": [], "next_cursor": None}
CLUSTER = {
    "name": "gpu", "vm_size": "x", "vm_priority": "dedicated", "min_nodes": 0, "max_nodes": 1,
    "idle_seconds_before_scaledown": 1, "slots_per_node": 1, "current_nodes": 0, "target_nodes": 0,
    "queued_runs": 0, "created_at": NOW, "modified_at": NOW,
}  # fmt: skip
DATASET = {"dataset_id": "d1", "files": 1, "source": "files", "created_at": NOW}
ENVIRONMENT = {"name": "keras", "version": 1, "env_id": "e1", "definition": {}, "created_at": NOW}
BUILD = {"env_id": "e1", "build": 1, "state": "building"}
MODEL = {
    "name": "m", "version": 1, "model_id": "m:1", "manifest": "0" * 64, "files": 1, "bytes": 1,
    "created_at": NOW,
}  # fmt: skip
SECRET = {"name": "a-b", "created_at": NOW, "updated_at": NOW}
ENTRY = {"path": "a", "size": 1, "sha256": "0" * 64}
PAGED = {"limit": 5, "cursor": "c"}

ROUTES: list[tuple[str, str, Any, int, str, dict[str, Any], dict[str, Any]]] = [
    ("GET", "/experiments?limit=5&cursor=c", None, 200, "history/experiment-list", PAGED, EMPTY),
    ("GET", "/runs?tag=a%3Db&status=Running&order=metric:loss%20asc&limit=500", None, 200,
     "history/run-list", {"tag": "a=b", "status": "Running", "order": "metric:loss asc",
      "limit": 200}, EMPTY),
    ("GET", "/models?name=m&tag=a&run_id=abc", None, 200, "model-registry/model-list",
     {"name": "m", "tag": "a", "run_id": "abc", "limit": 100}, EMPTY),
    ("GET", "/runs/abc/metrics?name=loss&after=7&limit=9", None, 200, "history/run-metrics",
     {"run_id": "abc", "name": "loss", "after": 7, "limit": 9}, {"points": [], "next": None}),
    ("POST", "/datasets", {"source": {"kind": "urls", "urls": ["https://example.org/a"]}}, 201,
     "dataset/dataset-create",
     {"source": {"kind": "urls", "urls": ["https://example.org/a"]}, "tabular": None}, DATASET),
    ("POST", "/datasets/d1/register", {"name": "mnist"}, 201, "dataset/dataset-register",
     {"dataset_id": "d1", "request": {"name": "mnist", "description": None, "tags": {},
      "create_new_version": False}}, DATASET),
    ("POST", "/datasets/d1/register", {"name": "mnist"}, 200, "dataset/dataset-register", {},
     {**DATASET, "created": False}),
    ("GET", "/datasets?name=mnist&limit=5&cursor=c", None, 200, "dataset/dataset-list",
     {"name": "mnist", **PAGED}, EMPTY),
    ("GET", "/datasets/d1", None, 200, "dataset/dataset-get", {"dataset_id": "d1"}, DATASET),
    ("GET", "/datasets/by-name/a%20b?version=2", None, 200, "dataset/dataset-get",
     {"name": "a b", "version": 2}, DATASET),
    ("GET", "/datasets/d1/files?limit=5&cursor=c", None, 200, "dataset/dataset-files",
     {"dataset_id": "d1", **PAGED}, EMPTY),
    ("PATCH", "/datasets/by-name/mnist/versions/2", {"tags": {"a": None}}, 200, "dataset/dataset-patch",
     {"name": "mnist", "version": 2, "patch": {"tags": {"a": None}}}, DATASET),
    ("DELETE", "/datasets/by-name/mnist", None, 200, "dataset/dataset-unregister",
     {"name": "mnist"}, {"versions": 2}),
    ("POST", "/datastores/store/files", {"entries": [ENTRY], "overwrite": True}, 201,
     "dataset/datastore-upload", {"name": "store", "request": {"entries":
      [{**ENTRY, "executable": False}], "overwrite": True}}, {"stored": 1, "unchanged": 0}),
    ("GET", "/datastores/store/files?prefix=a/&limit=5&cursor=c", None, 200,
     "dataset/datastore-files", {"name": "store", "prefix": "a/", **PAGED}, EMPTY),
    ("POST", "/environments", {"name": "keras", "requirements": "keras"}, 201,
     "environment-build/environment-register",
     {"name": "keras", "definition": None, "conda_yaml": None, "requirements": "keras",
      "pyproject": None, "uv_lock": None, "extras": [], "groups": []},
     ENVIRONMENT),
    ("POST", "/environments", {"name": "keras", "requirements": "keras"}, 200,
     "environment-build/environment-register", {}, {**ENVIRONMENT, "created": False}),
    ("GET", "/environments?name=keras&limit=5&cursor=c", None, 200,
     "environment-build/environment-list", {"name": "keras", "curated": False, **PAGED}, EMPTY),
    ("GET", "/environments?curated=true", None, 200, "environment-build/environment-list",
     {"curated": True, "limit": 100}, EMPTY),
    ("GET", "/environments/keras?version=3", None, 200, "environment-build/environment-get",
     {"name": "keras", "version": 3}, ENVIRONMENT),
    ("POST", "/environments/keras/builds?version=3&rebuild=true", None, 202,
     "environment-build/build-start", {"name": "keras", "version": 3, "rebuild": True}, BUILD),
    ("GET", "/builds/e1", None, 200, "environment-build/build-get", {"env_id": "e1"}, BUILD),
    ("POST", "/compute", {"name": "gpu", "max_nodes": 2}, 201, "scheduler/compute-create",
     {"name": "gpu", "vm_size": "STANDARD_D2_V2", "min_nodes": 0, "max_nodes": 2,
      "idle_seconds_before_scaledown": 1800, "slots_per_node": 1, "vm_priority": "dedicated",
      "description": None, "tags": {}}, CLUSTER),
    ("GET", "/compute?limit=5&cursor=c", None, 200, "scheduler/compute-list", PAGED, EMPTY),
    ("GET", "/compute/gpu", None, 200, "scheduler/compute-get", {"name": "gpu"}, CLUSTER),
    ("PATCH", "/compute/gpu", {"max_nodes": 3}, 200, "scheduler/compute-update",
     {"name": "gpu", "patch": {"max_nodes": 3}}, CLUSTER),
    ("DELETE", "/compute/gpu", None, 200, "scheduler/compute-delete", {"name": "gpu"}, CLUSTER),
    ("POST", "/models", {"name": "m", "manifest": {"entries": []}}, 201,
     "model-registry/model-register", {"name": "m", "run_id": None, "path": None,
      "manifest": {"entries": []}, "description": None, "tags": {}, "properties": {}, "framework": None,
      "framework_version": None, "datasets": {}, "key": None}, MODEL),
    ("GET", "/models/m?version=2", None, 200, "model-registry/model-get",
     {"name": "m", "version": 2}, MODEL),
    ("PATCH", "/models/m/versions/2", {"tags": {"a": None}}, 200, "model-registry/model-patch",
     {"name": "m", "version": 2, "patch": {"tags": {"a": None}}}, MODEL),
    ("DELETE", "/models/m/versions/2", None, 200, "model-registry/model-delete",
     {"name": "m", "version": 2}, MODEL),
    ("PUT", "/secrets/a-b", {"value": "hush"}, 200, "keyvault/secret-set",
     {"name": "a-b", "value": "hush"}, SECRET),
    ("GET", "/secrets?limit=5&cursor=c", None, 200, "keyvault/secret-list", PAGED, EMPTY),
    ("GET", "/secrets/a-b", None, 200, "keyvault/secret-get", {"name": "a-b"},
     {**SECRET, "value": "hush"}),
    ("DELETE", "/secrets/a-b", None, 200, "keyvault/secret-delete", {"name": "a-b"}, SECRET),
    ("GET", "/models/m/versions/2/files", None, 200, "model-registry/model-files",
     {"name": "m", "version": 2}, {"files": []}),
]  # fmt: skip


async def test_each_route_asks_its_verb(
    gateway: Gateway, services: Services, subtests: pytest.Subtests
) -> None:
    answers: dict[str, dict[str, Any]] = {}
    for verb in {row[4] for row in ROUTES}:

        async def answer(_: dict[str, Any], verb: str = verb) -> dict[str, Any]:
            return answers[verb]

        service, _, name = verb.partition("/")
        await services.on(service, name, answer)
    for method, path, sent, status, verb, fields, reply in ROUTES:
        with subtests.test(route=f"{method} {path}"):
            answers[verb] = reply
            services.asked.clear()
            got = await gateway.client.request(method, path, json=sent)
            assert got.status_code == status, got.text
            assert services.asked[0][0] == verb.split("/")[1]
            assert not fields or services.asked[0][1] == fields
            shown = got.json()
            assert all(shown[key] == value for key, value in reply.items() if key != "definition")


async def test_prune_names_the_environments_of_live_runs(
    gateway: Gateway, services: Services
) -> None:
    """Page by page, of every status that is not an end."""
    run = {
        "run_id": "r",
        "experiment": "e",
        "target": "local",
        "submitted_at": "2026-01-01T00:00:00Z",
    }

    async def listed(asked: dict[str, Any]) -> dict[str, Any]:
        if asked["status"] != "Running":
            return EMPTY
        number = 2 if asked.get("cursor") else 1
        items = [{**run, "status": "Running", "image": {"env_id": f"e{number}"}}]
        return {"items": items, "next_cursor": "more" if number == 1 else None}

    async def pruned(_: dict[str, Any]) -> dict[str, Any]:
        return {}

    await services.on("history", "run-list", listed)
    await services.on("environment-build", "environment-prune", pruned)
    answer = await gateway.client.post("/environments/prune", json={"max_bytes": 5})
    assert answer.status_code == 200, answer.text
    statuses = {asked["status"] for verb, asked in services.asked if verb == "run-list"}
    assert statuses == set(RunStatus) - TERMINAL
    (sent,) = [asked for verb, asked in services.asked if verb == "environment-prune"]
    assert sent == {
        "max_bytes": 5,
        "dry_run": False,
        "from_registry": False,
        "in_use": ["e1", "e2"],
    }
    assert (await gateway.client.post("/environments/prune", json={})).status_code == 422


@pytest.mark.parametrize(
    "course",
    [
        ["Preparing", "Queued", "Starting", "Running", "Finalizing"],
        ["Running", "Queued", "Provisioning", "Starting", "Running"],
        ["NotResponding", "Running"],
    ],
)
async def test_prune_misses_no_run_that_moves_meanwhile(
    gateway: Gateway, services: Services, course: list[str]
) -> None:
    """It moves each time just before it would be seen, as often as it can."""
    run = {"run_id": "r", "experiment": "e", "target": "local", "image": {"env_id": "e1"}}
    left = list(course)

    async def listed(asked: dict[str, Any]) -> dict[str, Any]:
        if asked["status"] == left[0] and len(left) > 1:
            left.pop(0)
            return EMPTY
        if asked["status"] != left[0]:
            return EMPTY
        item = {**run, "status": left[0], "submitted_at": "2026-01-01T00:00:00Z"}
        return {"items": [item], "next_cursor": None}

    async def pruned(_: dict[str, Any]) -> dict[str, Any]:
        return {}

    await services.on("history", "run-list", listed)
    await services.on("environment-build", "environment-prune", pruned)
    answer = await gateway.client.post("/environments/prune", json={"max_bytes": 5})
    assert answer.status_code == 200, answer.text
    (sent,) = [asked for verb, asked in services.asked if verb == "environment-prune"]
    assert sent["in_use"] == ["e1"]


async def test_a_model_of_an_unknown_run_is_refused_at_once(
    gateway: Gateway, services: Services
) -> None:
    async def unknown(_: dict[str, Any]) -> dict[str, Any]:
        raise NotFoundError("no such run", code="run.not_found", field="run_id")

    await services.on("history", "run-get", unknown)
    for run_id in ("nope", "not an id"):
        answer = await gateway.client.post("/models", json={"name": "m", "run_id": run_id})
        assert (answer.status_code, answer.json()["code"]) == (404, "run.not_found")
        assert answer.json()["field"] == "run_id"


async def test_info_says_which_services_answer(gateway: Gateway, services: Services) -> None:
    async def empty(_: dict[str, Any]) -> dict[str, Any]:
        return EMPTY

    async def broken(_: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError

    await services.on("scheduler", "compute-list", empty)
    await services.on("history", "experiment-list", broken)
    answer = (await gateway.client.get("/info")).json()
    assert answer["workspace"] == "default"
    assert answer["limits"]["body_bytes"] == 1024 * 1024
    assert answer["services"] == {
        "gateway": "ready",
        "scheduler": "ready",
        "history": "failing",
        "dataset": "away",
        "environment-build": "away",
        "model-registry": "away",
        "keyvault": "away",
    }


async def test_openapi_describes_every_route(gateway: Gateway, subtests: pytest.Subtests) -> None:
    description = (await gateway.stranger.get("/openapi.json")).json()
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    assert len({operation["operationId"] for _, operation in operations}) == len(operations)
    assert len(operations) == 59
    for name, operation in operations:
        with subtests.test(operation=name):
            assert operation["summary"]
            assert operation["description"]
            assert operation["security"]
            responses = operation["responses"]
            assert {"401", "403", "422", "429", "500", "503"} <= set(responses)
            for status, response in responses.items():
                assert response["description"]
                if int(status) >= 400:
                    schema = response["content"][MEDIA_TYPE]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}
            if name.split()[0] in {"GET", "DELETE"}:
                assert "requestBody" not in operation
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], parameter["name"]
    text = str(description)
    for reference in set(re.findall(r"#/components/schemas/([^'\"]+)", text)):
        assert reference in description["components"]["schemas"]


async def test_the_contract_has_no_route_that_is_not_served(gateway: Gateway) -> None:
    paths = (await gateway.stranger.get("/openapi.json")).json()["paths"]
    served = {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}"
        for path, methods in paths.items()
        for method in methods
    }
    promised = """GET /info|POST /runs|GET /runs|GET /runs/{}|PATCH /runs/{}|POST /runs/{}/cancel
    |GET /runs/{}/events|GET /runs/{}/logs|GET /runs/{}/logs/{}|GET /runs/{}/files
    |GET /runs/{}/files/{}|GET /runs/{}/metrics|GET /runs/{}/series|POST /runs/{}/records|POST /runs/{}/logs
    |POST /runs/{}/end|GET /experiments|POST /blobs|POST /snapshots|GET /snapshots/{}/files
    |GET /snapshots/{}/files/{}
    |POST /datasets|POST /datasets/{}/register|GET /datasets|GET /datasets/{}
    |GET /datasets/by-name/{}|GET /datasets/{}/files|GET /datasets/{}/files/{}
    |PATCH /datasets/by-name/{}/versions/{}|DELETE /datasets/by-name/{}|POST /datastores/{}/files|GET /datastores/{}/files
        |GET /datastores/{}/files/{}
    |POST /environments|POST /environments/prune|GET /environments|GET /environments/{}|POST /environments/{}/builds
    |GET /environments/{}/sbom|GET /builds/{}/sbom|GET /runs/{}/sbom
    |GET /builds/{}|GET /builds/{}/log|POST /compute|GET /compute|GET /compute/{}
    |PATCH /compute/{}|DELETE /compute/{}|POST /models|GET /models|GET /models/{}
    |PATCH /models/{}/versions/{}|DELETE /models/{}/versions/{}|GET /models/{}/versions/{}/files
    |GET /models/{}/versions/{}/files/{}|GET /secrets|PUT /secrets/{}|GET /secrets/{}
    |DELETE /secrets/{}"""
    wanted = {line.strip().replace(" /", " /api/v1/", 1) for line in promised.split("|")}
    assert wanted <= served
    assert served - wanted == set()


async def test_the_pages_need_nothing_from_elsewhere(gateway: Gateway) -> None:
    for path in ("/", "/docs"):
        answer = await gateway.stranger.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        links = re.findall(r'(?:src|href)="([^"#][^"]*)"', answer.text)
        assert links
        assert all(link.startswith("/") for link in links)
        assert "<script" not in answer.text
        assert "<style" not in answer.text
        assert " style=" not in answer.text
        for link in links:
            assert (await gateway.stranger.get(link)).status_code == 200
    docs = (await gateway.stranger.get("/docs")).text
    assert "/api/v1/runs/{run_id}/cancel" in docs
    assert "print(&#x27;hello&#x27;)" in docs
    assert "<code>priority</code></td><td>whole number (0 to 100)</td>" in docs
    assert '<td>object: name to <a href="#DatasetInput">DatasetInput</a>' in docs
    linked = set(re.findall(r'href="#([^"]+)"', docs))
    assert "RunRequest" in linked
    assert linked <= set(re.findall(r'id="([^"]+)"', docs))


async def test_the_pages_of_runs_hold_no_data_and_want_no_token(gateway: Gateway) -> None:
    pages_of = {}
    for path in ("/runs/abc", "/runs/<script>", "/experiments", "/experiments/a%20b"):
        answer = await gateway.stranger.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (
            200, "text/html; charset=utf-8",
        )  # fmt: skip
        pages_of[path] = answer.text
    assert pages_of["/runs/abc"] == pages_of["/runs/<script>"]
    assert pages_of["/experiments"] == pages_of["/experiments/a%20b"]
    assert (await gateway.stranger.post("/runs/abc")).status_code == 405
    assert (await gateway.stranger.get("/web/page.html")).status_code == 404
    assert (await gateway.stranger.get("/web/..%2Fauth.py")).status_code == 404


async def test_the_scripts_of_the_pages_are_there_and_make_no_markup(gateway: Gateway) -> None:
    """Values reach a page as text nodes only: a run that is named like a script stays text."""
    found, open_ = set(), {"/runs/abc", "/experiments"}
    while open_:
        path = open_.pop()
        found.add(path)
        answer = await gateway.stranger.get(path)
        assert answer.status_code == 200, path
        text = answer.text
        links = re.findall(r'(?:src|href|from) ?=?"(/[^"?]*)"', text)
        open_ |= set(links) - found
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not re.search(r"<style|\sstyle=|\son\w+=", text), path
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(",
                          "localStorage", "cookie"):  # fmt: skip
            assert forbidden not in text, (path, forbidden)
    assert {"/web/run.js", "/web/experiments.js", "/web/api.js", "/web/app.css"} <= found


def test_the_pages_escape_what_they_show() -> None:
    hostile = "</details><img src=x onerror=alert(1)>"
    operation = {
        "tags": [hostile],
        "summary": hostile,
        "description": hostile,
        "parameters": [{"name": hostile, "in": "query", "description": hostile}],
        "responses": {"200": {"description": hostile}},
    }
    description = {"info": {"description": hostile}, "paths": {hostile: {"get": operation}}}
    assert "<img" not in pages._routes(description)


async def test_the_examples_are_accepted(gateway: Gateway, services: Services) -> None:
    sent: list[tuple[str, Any]] = [
        ("/runs", examples.RUN),
        ("/datasets", examples.DATASET),
        ("/environments", examples.ENVIRONMENT),
        ("/compute", examples.COMPUTE),
        ("/models", examples.MODEL),
        ("/blobs", examples.BLOBS),
        ("/snapshots", examples.SNAPSHOT),
    ]
    bodies = [(path, example["value"]) for path, group in sent for example in group.values()]
    answers = [await gateway.client.post(path, json=value) for path, value in bodies]
    # 503: valid, and the service behind is not there in this test
    assert {answer.status_code for answer in answers} == {202, 503}
    assert services.asked == []
