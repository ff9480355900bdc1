"""What can be said about a run before it is accepted: whether what it names exists.

All questions are asked at once. Best effort: who does not answer within a second is not waited
for, because the owners check again when the run is prepared, and a platform part that is away
must not stop submissions.
"""

import asyncio
import difflib
from collections.abc import Awaitable, Iterable
from contextlib import suppress

from stellwerk import ids
from stellwerk.api import ComputeView, DatasetView, EnvironmentView, Page, RunRequest, RunView
from stellwerk.environment_spec import EnvironmentDefinition, InvalidEnvironment, check
from stellwerk.errors import NotFoundError, ProtocolError, ServiceUnavailableError, UserError
from stellwerk.runspec import DatasetInput, EnvironmentReference, RunSpec, SnapshotSource
from stellwerk_gateway.platform import BEST_EFFORT_S, Platform

BUILT_IN_TARGET = "local"
SHOWN_FILES = 10
KNOWN_S = 2.0
"""A compute target seen so long ago is taken to be there."""


async def precheck(platform: Platform, request: RunRequest) -> None:
    """Raise the first UserError there is, in the order of the request's fields."""
    spec = request.spec
    environment = spec.environment
    questions: list[Awaitable[None]] = []
    if isinstance(spec.source, SnapshotSource):
        questions.append(_script_exists(platform, spec, spec.source.snapshot))
    questions += [_input_exists(platform, name, asked) for name, asked in spec.inputs.items()]
    if spec.interactive:
        pass
    elif isinstance(environment, EnvironmentDefinition):
        questions.append(_definition_usable(environment))
    else:
        questions.append(_environment_exists(platform, environment))
    if spec.target != BUILT_IN_TARGET:
        questions.append(_target_exists(platform, spec.target))
    if request.parent_run_id is not None:
        questions.append(_parent_exists(platform, request.parent_run_id))
    answers = await asyncio.gather(*map(_in_time, questions), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer


async def _in_time(question: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(BEST_EFFORT_S):
            await question
    except (TimeoutError, ServiceUnavailableError):
        return


async def _script_exists(platform: Platform, spec: RunSpec, digest: str) -> None:
    try:
        paths = await platform.snapshots.of(digest)
    except NotFoundError as error:
        raise UserError(
            f"spec.source.snapshot: there is no snapshot {digest}. Upload it first "
            "(POST /api/v1/snapshots).",
            code="source.snapshot",
            field="spec.source.snapshot",
        ) from error
    except ProtocolError as error:
        raise UserError(
            f"spec.source.snapshot: blob {digest} is no snapshot.",
            code="source.snapshot",
            field="spec.source.snapshot",
        ) from error
    if spec.script is not None and spec.script.removeprefix("./") not in paths:
        raise UserError(
            f"spec.script: {spec.script!r} is not in the snapshot, which has {_listed(paths)}.",
            code="source.entrypoint",
            field="spec.script",
        )


async def _input_exists(platform: Platform, name: str, asked: DatasetInput) -> None:
    by_name = {"name": asked.dataset, "version": asked.version}
    by_id = {"dataset_id": asked.dataset}
    for fields in (by_name, by_id) if ids.is_id(asked.dataset) else (by_name,):
        with suppress(NotFoundError):
            await platform.ask("dataset", "dataset-get", DatasetView, **fields)
            return
    version = "" if asked.version is None else f" version {asked.version}"
    field = f"spec.inputs.{name}"
    raise NotFoundError(
        f"{field}: there is no dataset {asked.dataset!r}{version}. Register it, or see "
        "GET /api/v1/datasets.",
        code="dataset.not_found",
        field=field,
    )


async def _definition_usable(environment: EnvironmentDefinition) -> None:
    try:
        check(environment)
    except InvalidEnvironment as error:
        field = f"spec.environment.{error.field}"
        raise UserError(f"{field}: {error.said}", code=error.code, field=field) from error


async def _environment_exists(platform: Platform, asked: EnvironmentReference) -> None:
    try:
        await platform.ask(
            "environment-build",
            "environment-get",
            EnvironmentView,
            name=asked.name,
            version=asked.version,
        )
    except NotFoundError as error:
        raise NotFoundError(
            f"spec.environment: {error.message}",
            code="environment.not_found",
            field="spec.environment",
        ) from error


async def _target_exists(platform: Platform, target: str) -> None:
    now = platform.clock.monotonic()
    if now - platform.targets.get(target, -KNOWN_S) < KNOWN_S:
        return
    try:
        await platform.ask("scheduler", "compute-get", ComputeView, name=target)
        platform.targets[target] = now
    except NotFoundError as error:
        page = await platform.ask("scheduler", "compute-list", Page[ComputeView], limit=100)
        known = sorted({BUILT_IN_TARGET, *(compute.name for compute in page.items)})
        close = difflib.get_close_matches(target, known, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise NotFoundError(
            f"spec.target: there is no compute target {target!r}. {hint}There are "
            f"{', '.join(known)}.",
            code="compute.not_found",
            field="spec.target",
        ) from error


async def _parent_exists(platform: Platform, parent_run_id: str) -> None:
    try:
        await platform.ask("history", "run-get", RunView, run_id=parent_run_id)
    except NotFoundError as error:
        raise NotFoundError(
            f"parent_run_id: there is no run {parent_run_id}.",
            code="run.not_found",
            field="parent_run_id",
        ) from error


def _listed(paths: Iterable[str]) -> str:
    """Some paths, Python files and short ones first."""
    ordered = sorted(paths, key=lambda path: (not path.endswith(".py"), path.count("/"), path))
    rest = len(ordered) - SHOWN_FILES
    return ", ".join(ordered[:SHOWN_FILES]) + (f" and {rest} more" if rest > 0 else "")
