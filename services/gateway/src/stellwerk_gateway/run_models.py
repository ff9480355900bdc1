"""Models of a run's files: by its registry once the run has completed, by history before that."""

from stellwerk.api import ModelLineage, ModelRequest, ModelView, RunView
from stellwerk.errors import NotFoundError
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk.runspec import SnapshotSource
from stellwerk.runstate import TERMINAL
from stellwerk_gateway.downloads import run_files
from stellwerk_gateway.platform import BEST_EFFORT_S, Platform
from stellwerk_gateway.submission import find_run
from stellwerk_gateway.wrapped import GivenModel, KeyedModel

REGISTER_WAIT_S = 20.0
"""The longest the owner may wait to hear that the run has ended."""
PATH_NOT_FOUND = "model.path_not_found"


async def register(platform: Platform, request: ModelRequest, key: str | None) -> ModelView:
    """Register the next version of a model, once for a ``key``."""
    keyed = KeyedModel(**dict(request), key=key)
    if request.run_id is None:
        return await _by_registry(platform, keyed)
    # Without this the owner would wait for a run that nobody knows.
    run = await find_run(platform, request.run_id, timeout_s=BEST_EFFORT_S, stale=True)
    if run.status not in TERMINAL:
        return await _given(platform, request, run, key)
    try:
        return await _by_registry(platform, keyed)
    except NotFoundError as error:
        if error.code != PATH_NOT_FOUND:
            raise
        return await _given(platform, request, run, key)  # a client gave it to the run


async def _by_registry(platform: Platform, request: KeyedModel) -> ModelView:
    return await platform.send(
        "model-registry", "model-register", request, ModelView, wait_s=REGISTER_WAIT_S
    )


async def _given(
    platform: Platform, request: ModelRequest, run: RunView, key: str | None
) -> ModelView:
    entries = [
        ManifestEntry(path=file.path, size=file.size, sha256=file.sha256)
        async for file in run_files(platform, run.run_id)
        if file.sha256 is not None
    ]
    source = run.spec.source if run.spec else None
    lineage = ModelLineage(
        run_id=run.run_id,
        experiment=run.experiment,
        env_id=run.image.env_id if run.image else None,
        snapshot=source.snapshot if isinstance(source, SnapshotSource) else None,
        inputs=run.inputs,
    )
    files = Manifest(entries=tuple(entries))
    wanted = GivenModel(request=request, key=key, files=files, lineage=lineage)
    return await platform.send("model-registry", "model-register-given", wanted, ModelView)
