"""Handlers of the scripted platform: store, snapshots, runs."""

import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from scripted_answers import TERMINAL, answer, page, problem, redirect
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from stellwerk import api
from stellwerk.ids import run_id
from stellwerk.log_names import put_aside

if TYPE_CHECKING:
    from scripted_platform import Platform, ScriptedRun


def _put(p: "Platform") -> Any:
    async def put(request: Request) -> Response:
        body = await request.body()
        digest = request.path_params["digest"]
        if "transfer-encoding" in request.headers:
            return Response("S3 wants a Content-Length", 411)
        p.puts.append(digest)
        p.blobs[digest] = body
        return Response()

    return put


def _get(p: "Platform") -> Any:
    async def get(request: Request) -> Response:
        body = p.blobs.get(request.path_params["digest"])
        return Response(body) if body is not None else Response("", 404)

    return get


def _info(p: "Platform") -> Any:
    async def info(request: Request) -> Response:
        return answer(api.InfoView(version="9.9", workspace="default"))

    return info


def _blobs(p: "Platform") -> Any:
    async def blobs(request: Request) -> Response:
        asked = api.BlobPlanRequest.model_validate_json(await request.body())
        missing = tuple(
            api.BlobUpload(sha256=each.sha256, url=f"{p.url}/store/{each.sha256}")
            for each in asked.blobs
            if each.sha256 not in p.blobs
        )
        return answer(api.BlobPlan(missing=missing))

    return blobs


def _snapshots(p: "Platform") -> Any:
    async def snapshots(request: Request) -> Response:
        manifest = api.SnapshotRequest.model_validate_json(await request.body()).manifest
        for entry in manifest.entries:
            if hashlib.sha256(p.blobs[entry.sha256]).hexdigest() != entry.sha256:
                return problem(422, "blob.content", entry.path)
        p.blobs[manifest.digest()] = manifest.canonical()
        view = api.SnapshotView(
            digest=manifest.digest(), files=len(manifest.entries), bytes=manifest.size
        )
        return answer(view)

    return snapshots


def _submit(p: "Platform") -> Any:
    async def submit(request: Request) -> Response:
        asked = api.RunRequest.model_validate_json(await request.body())
        run = run_id("default", request.headers["idempotency-key"])
        if run not in p.runs:
            p.add_run(
                asked.experiment, run_id=run, spec=asked.spec, tags=asked.spec.tags,
                display_name=asked.spec.display_name,
            )  # fmt: skip
            if p.on_submit:
                p.on_submit(run)
        return answer(p.runs[run].view, 202)

    return submit


def _found(p: "Platform", request: Request) -> "ScriptedRun | None":
    return p.runs.get(request.path_params["run"])


def _runs(p: "Platform") -> Any:
    async def runs(request: Request) -> Response:
        search, status = map(request.query_params.get, ("search", "status"))
        views = [each.view for each in reversed(p.runs.values())]
        views = [view for view in views if status in {None, view.status}]
        return page([view for view in views if not search or view.run_id.startswith(search)])

    return runs


def _run(p: "Platform") -> Any:
    async def run(request: Request) -> Response:
        found = _found(p, request)
        return answer(found.view) if found else problem(404, "run.not_found", "no such run")

    return run


def _patch_run(p: "Platform") -> Any:
    async def patch(request: Request) -> Response:
        found = _found(p, request)
        assert found
        change = api.RunPatch.model_validate_json(await request.body())
        if set(change.properties) & set(found.view.properties):
            return problem(409, "run.property", "properties never change")
        tags = {k: v for k, v in found.view.tags.items() if k not in change.remove_tags}
        update = {
            "tags": {**tags, **change.tags},
            "properties": {**found.view.properties, **change.properties},
        }
        found.view = found.view.model_copy(update=update)
        return answer(found.view)

    return patch


def _cancel(p: "Platform") -> Any:
    async def cancel(request: Request) -> Response:
        p.event(request.path_params["run"], "CancelRequested")
        p.event(request.path_params["run"], "Canceled")
        found = _found(p, request)
        assert found
        return answer(found.view, 202)

    return cancel


def _events(p: "Platform") -> Any:
    async def events(request: Request) -> Response:
        found = _found(p, request)
        if found is None:
            return problem(404, "run.not_found", "no such run")
        after = int(request.headers.get("last-event-id", "0"))

        async def stream() -> AsyncIterator[str]:
            position = after
            yield ": hello\n\n"
            while True:
                for event in found.events[position:]:
                    position = event.sequence
                    yield f"id: {event.sequence}\ndata: {event.model_dump_json()}\n\n"
                if found.view.status in TERMINAL:
                    return
                await p.changed()

        return StreamingResponse(stream(), media_type="text/event-stream")

    return events


def _logs(p: "Platform") -> Any:
    async def logs(request: Request) -> Response:
        found = _found(p, request)
        assert found
        listed = [
            {"path": path, "bytes": len(data), "closed": path in found.closed}
            for path, data in found.logs.items()
        ]
        return JSONResponse({"logs": listed})

    return logs


def _log(p: "Platform") -> Any:
    async def log(request: Request) -> Response:
        found = _found(p, request)
        assert found
        path = request.path_params["path"]
        offset = int(request.query_params.get("offset", "0"))
        if request.query_params.get("follow") != "true":
            if path not in found.logs:
                return problem(404, "log.not_found", path)
            return Response(found.logs[path][offset:])

        attempt = int(request.query_params.get("attempt", "0"))

        async def stream() -> AsyncIterator[bytes]:
            position, generation = offset, found.generation
            while True:
                if generation != found.generation and not attempt:
                    position, generation = 0, found.generation
                superseded = 0 < attempt < found.view.attempt
                name = put_aside(path, attempt) if superseded else path
                data = found.logs.get(name, b"")[position:]
                if data:
                    position += len(data)
                    yield data
                elif superseded or path in found.closed or found.view.status in TERMINAL:
                    return
                else:
                    await p.changed()

        return StreamingResponse(stream(), media_type="application/octet-stream")

    return log


def _files(p: "Platform") -> Any:
    async def files(request: Request) -> Response:
        found = _found(p, request)
        assert found
        listed = [
            {"path": path, "size": len(p.blobs.get(digest, b"")), "sha256": digest}
            for path, digest in found.files.items()
        ]
        return JSONResponse({"files": listed})

    return files


def _file(p: "Platform") -> Any:
    async def file(request: Request) -> Response:
        found = _found(p, request)
        assert found
        return redirect(p, found.files.get(request.path_params["path"]))

    return file


def _series(p: "Platform") -> Any:
    async def series(request: Request) -> Response:
        found = _found(p, request)
        assert found
        run, name = request.path_params["run"], request.query_params.get("name")
        after = int(request.query_params.get("cursor", "0"))
        points = [m for m in found.metrics if m.sequence > after and name in {None, m.name}]
        page = [
            {"run_id": run, "name": m.name, "kind": m.kind, "values": [m.value]} for m in points[:2]
        ]
        following = str(points[1].sequence) if len(points) > 2 else None
        below = [key for key, each in p.runs.items() if each.view.parent_run_id == run]
        runs = [run, *below] if "recursive" in request.query_params else [run]
        return JSONResponse({"runs": runs, "series": page, "next": following})

    return series


ROUTES = (
    ("/store/{digest}", _put, "PUT"),
    ("/store/{digest}", _get, "GET"),
    ("/info", _info, "GET"),
    ("/blobs", _blobs, "POST"),
    ("/snapshots", _snapshots, "POST"),
    ("/runs", _submit, "POST"),
    ("/runs", _runs, "GET"),
    ("/runs/{run}", _run, "GET"),
    ("/runs/{run}", _patch_run, "PATCH"),
    ("/runs/{run}/cancel", _cancel, "POST"),
    ("/runs/{run}/events", _events, "GET"),
    ("/runs/{run}/logs", _logs, "GET"),
    ("/runs/{run}/logs/{path:path}", _log, "GET"),
    ("/runs/{run}/files", _files, "GET"),
    ("/runs/{run}/files/{path:path}", _file, "GET"),
    ("/runs/{run}/series", _series, "GET"),
)
