"""Handlers of the scripted platform: datasets, environments, compute, models."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from scripted_answers import NOW, answer, page, problem, redirect
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stellwerk import api
from stellwerk.manifest import Manifest

if TYPE_CHECKING:
    from scripted_platform import Platform


# --- datasets ---------------------------------------------------------------------------------


def _make_dataset(p: "Platform") -> Any:
    async def make(request: Request) -> Response:
        source = api.DatasetRequest.model_validate_json(await request.body()).source
        if source.kind == "files":
            files: dict[str, str | None] = {each.path: each.sha256 for each in source.entries}
        elif source.kind == "urls":
            files = {each.partition("://")[2]: None for each in source.urls}
        else:
            folder = source.paths[0].path
            files = {
                path.removeprefix(folder + "/"): digest
                for path, digest in p.datastore.items()
                if path == folder or path.startswith(folder + "/")
            }
        dataset_id = hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:32]
        view = api.DatasetView(
            dataset_id=dataset_id, files=len(files), source=source.kind, created_at=NOW
        )
        known = p.datasets.setdefault(dataset_id, {"view": view, "files": files})
        return answer(known["view"].model_copy(update={"name": None, "version": None}))

    return make


def _named(p: "Platform", name: str) -> list[api.DatasetView]:
    return [
        view for each in p.datasets.values() for view in each.get("named", ()) if view.name == name
    ]


def _register_dataset(p: "Platform") -> Any:
    async def register(request: Request) -> Response:
        asked = api.DatasetRegisterRequest.model_validate_json(await request.body())
        entry = p.datasets[request.path_params["id"]]
        for view in entry.get("named", ()):
            if view.name == asked.name:
                return answer(view.model_copy(update={"created": False}))
        taken = _named(p, asked.name)
        if taken and not asked.create_new_version:
            return problem(409, "dataset.exists", f"{asked.name} exists", "name")
        view = entry["view"].model_copy(update={"name": asked.name, "version": len(taken) + 1})
        entry.setdefault("named", []).append(view)
        return answer(view)

    return register


def _datasets(p: "Platform") -> Any:
    async def datasets(request: Request) -> Response:
        return page([view for each in p.datasets.values() for view in each.get("named", ())])

    return datasets


def _dataset(p: "Platform") -> Any:
    async def dataset(request: Request) -> Response:
        found = p.datasets.get(request.path_params["id"])
        return answer(found["view"]) if found else problem(404, "dataset.not_found", "no such")

    return dataset


def _dataset_by_name(p: "Platform") -> Any:
    async def dataset(request: Request) -> Response:
        found = _named(p, request.path_params["name"])
        version = int(request.query_params.get("version", str(len(found))))
        if not found or version > len(found):
            return problem(404, "dataset.not_found", "not registered", "name")
        return answer(next(view for view in found if view.version == version))

    return dataset


def _dataset_files(p: "Platform") -> Any:
    async def files(request: Request) -> Response:
        found = p.datasets[request.path_params["id"]]["files"]
        return page(
            [
                api.DatasetFileView(path=path, sha256=digest, size=len(p.blobs.get(digest, b"")))
                for path, digest in found.items()
            ]
        )

    return files


def _dataset_file(p: "Platform") -> Any:
    async def file(request: Request) -> Response:
        found = p.datasets[request.path_params["id"]]["files"]
        return redirect(p, found.get(request.path_params["path"]))

    return file


def _datastore_upload(p: "Platform") -> Any:
    async def upload(request: Request) -> Response:
        asked = api.DatastoreUploadRequest.model_validate_json(await request.body())
        for entry in asked.entries:
            if p.datastore.get(entry.path, entry.sha256) != entry.sha256 and not asked.overwrite:
                return problem(409, "datastore.exists", entry.path)
            p.datastore[entry.path] = entry.sha256
        return answer(api.DatastoreUploadView(stored=len(asked.entries), unchanged=0))

    return upload


# --- environments -----------------------------------------------------------------------------


def _register_environment(p: "Platform") -> Any:
    async def register(request: Request) -> Response:
        asked = api.EnvironmentRequest.model_validate_json(await request.body())
        assert asked.definition is not None
        same = [each for each in p.environments if each.name == asked.name]
        for each in same:
            if each.definition == asked.definition:
                return answer(each.model_copy(update={"created": False}))
        view = api.EnvironmentView(
            name=asked.name, version=len(same) + 1, env_id="e" * 40, definition=asked.definition,
            created_at=NOW,
        )  # fmt: skip
        p.environments.append(view)
        return answer(view)

    return register


def _environments(p: "Platform") -> Any:
    async def environments(request: Request) -> Response:
        return page(p.environments)

    return environments


def _environment(p: "Platform") -> Any:
    async def environment(request: Request) -> Response:
        version = request.query_params.get("version")
        found = [
            each
            for each in p.environments
            if each.name == request.path_params["name"] and version in {None, str(each.version)}
        ]
        return answer(found[-1]) if found else problem(404, "environment.not_found", "no such")

    return environment


def _build_view(p: "Platform") -> api.BuildView:
    failed = p.build_state == "failed"
    return api.BuildView(
        env_id="e" * 40, build=1, state=p.build_state,
        reason="your-spec" if failed else None, message="no such package" if failed else None,
    )  # fmt: skip


def _start_build(p: "Platform") -> Any:
    async def start(request: Request) -> Response:
        state = "ready" if p.built_before else "building"
        return answer(_build_view(p).model_copy(update={"state": state}))

    return start


def _build(p: "Platform") -> Any:
    async def build(request: Request) -> Response:
        return answer(_build_view(p))

    return build


def _build_log(p: "Platform") -> Any:
    async def log(request: Request) -> Response:
        return Response(p.build_log[int(request.query_params.get("offset", "0")) :])

    return log


# --- compute ----------------------------------------------------------------------------------


def _make_compute(p: "Platform") -> Any:
    async def make(request: Request) -> Response:
        asked = api.ComputeRequest.model_validate_json(await request.body())
        if asked.name in p.compute:
            return problem(409, "compute.exists", f"{asked.name} exists already", "name")
        p.compute[asked.name] = api.ComputeView(
            **asked.model_dump(), current_nodes=asked.min_nodes, target_nodes=asked.min_nodes,
            queued_runs=0, created_at=NOW, modified_at=NOW,
        )  # fmt: skip
        return answer(p.compute[asked.name])

    return make


def _clusters(p: "Platform") -> Any:
    async def clusters(request: Request) -> Response:
        return page(list(p.compute.values()))

    return clusters


def _cluster(p: "Platform") -> Any:
    async def cluster(request: Request) -> Response:
        found = p.compute.get(request.path_params["name"])
        return answer(found) if found else problem(404, "compute.not_found", "no such cluster")

    return cluster


def _patch_compute(p: "Platform") -> Any:
    async def patch(request: Request) -> Response:
        asked = api.ComputePatch.model_validate_json(await request.body())
        name = request.path_params["name"]
        p.compute[name] = p.compute[name].model_copy(update=asked.model_dump(exclude_none=True))
        return answer(p.compute[name])

    return patch


def _delete_compute(p: "Platform") -> Any:
    async def delete(request: Request) -> Response:
        return answer(p.compute.pop(request.path_params["name"]))

    return delete


# --- models -----------------------------------------------------------------------------------


def _make_model(p: "Platform") -> Any:
    answered: dict[str, api.ModelView] = {}

    async def make(request: Request) -> Response:
        asked = api.ModelRequest.model_validate_json(await request.body())
        key = request.headers["idempotency-key"]
        if key in answered:
            return answer(answered[key])
        if asked.run_id is not None:
            parent = (asked.path or "").rpartition("/")[0]
            files = {
                path.removeprefix(parent + "/"): digest
                for path, digest in p.runs[asked.run_id].files.items()
                if path == asked.path or path.startswith(f"{asked.path}/")
            }
        else:
            manifest = asked.manifest or Manifest()
            files = {each.path: each.sha256 for each in manifest.entries}
        if not files:
            return problem(404, "model.path", f"no files at {asked.path}", "path")
        version = 1 + sum(view.name == asked.name for view, _ in p.models)
        view = api.ModelView(
            name=asked.name, version=version, model_id=f"{asked.name}:{version}", path=asked.path,
            manifest="0" * 64, files=len(files), bytes=0, created_at=NOW, tags=asked.tags,
            properties=asked.properties, framework=asked.framework, description=asked.description,
            lineage=api.ModelLineage(run_id=asked.run_id),
        )  # fmt: skip
        p.models.append((view, files))
        answered[key] = view
        return answer(view)

    return make


def _list_models(p: "Platform") -> Any:
    async def models(request: Request) -> Response:
        name = request.query_params.get("name")
        return page([view for view, _ in reversed(p.models) if name in {None, view.name}])

    return models


def _at(p: "Platform", request: Request) -> int | None:
    name, version = request.path_params["name"], request.path_params.get("version")
    version = version or request.query_params.get("version")
    fitting = [
        index
        for index, (view, _) in enumerate(p.models)
        if view.name == name and version in {None, str(view.version)}
    ]
    return fitting[-1] if fitting else None


def _find_model(p: "Platform") -> Any:
    async def find(request: Request) -> Response:
        index = _at(p, request)
        if index is None:
            return problem(404, "model.not_found", "no such model")
        return answer(p.models[index][0])

    return find


def _patch_model(p: "Platform") -> Any:
    async def patch(request: Request) -> Response:
        index = _at(p, request)
        assert index is not None
        view, files = p.models[index]
        asked = api.ModelPatch.model_validate_json(await request.body())
        tags = {k: v for k, v in view.tags.items() if k not in asked.remove_tags}
        update: dict[str, Any] = {"tags": {**tags, **asked.tags}}
        if asked.description is not None:
            update["description"] = asked.description
        p.models[index] = (view.model_copy(update=update), files)
        return answer(p.models[index][0])

    return patch


def _delete_model(p: "Platform") -> Any:
    async def delete(request: Request) -> Response:
        index = _at(p, request)
        assert index is not None
        return answer(p.models.pop(index)[0])

    return delete


def _model_files(p: "Platform") -> Any:
    async def files(request: Request) -> Response:
        index = _at(p, request)
        assert index is not None
        listed = [
            {"path": path, "size": len(p.blobs[digest]), "sha256": digest}
            for path, digest in p.models[index][1].items()
        ]
        return JSONResponse({"files": listed})

    return files


def _model_file(p: "Platform") -> Any:
    async def file(request: Request) -> Response:
        index = _at(p, request)
        assert index is not None
        return redirect(p, p.models[index][1].get(request.path_params["path"]))

    return file


ROUTES = (
    ("/datasets", _make_dataset, "POST"),
    ("/datasets", _datasets, "GET"),
    ("/datasets/by-name/{name}", _dataset_by_name, "GET"),
    ("/datasets/{id}", _dataset, "GET"),
    ("/datasets/{id}/register", _register_dataset, "POST"),
    ("/datasets/{id}/files", _dataset_files, "GET"),
    ("/datasets/{id}/files/{path:path}", _dataset_file, "GET"),
    ("/datastores/{name}/files", _datastore_upload, "POST"),
    ("/environments", _register_environment, "POST"),
    ("/environments", _environments, "GET"),
    ("/environments/{name}", _environment, "GET"),
    ("/environments/{name}/builds", _start_build, "POST"),
    ("/builds/{env}", _build, "GET"),
    ("/builds/{env}/log", _build_log, "GET"),
    ("/compute", _make_compute, "POST"),
    ("/compute", _clusters, "GET"),
    ("/compute/{name}", _cluster, "GET"),
    ("/compute/{name}", _patch_compute, "PATCH"),
    ("/compute/{name}", _delete_compute, "DELETE"),
    ("/models", _make_model, "POST"),
    ("/models", _list_models, "GET"),
    ("/models/{name}", _find_model, "GET"),
    ("/models/{name}/versions/{version}", _patch_model, "PATCH"),
    ("/models/{name}/versions/{version}", _delete_model, "DELETE"),
    ("/models/{name}/versions/{version}/files", _model_files, "GET"),
    ("/models/{name}/versions/{version}/files/{path:path}", _model_file, "GET"),
)
