"""What a run may do with its own token: read the workspace, write to itself and its descendants.

Whatever is not named here is refused, so a new route is closed to runs until somebody opens it.
A run that is not the caller's is answered like one that does not exist.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from stellwerk.api import ModelRequest, RunRequest
from stellwerk.errors import NotFoundError
from stellwerk_gateway.auth import SAFE_METHODS, RunCaller
from stellwerk_gateway.platform import Here, Platform
from stellwerk_gateway.problems import HttpError
from stellwerk_gateway.replies import AncestorsReply
from stellwerk_gateway.submission import RUN_NOT_FOUND

OF_ITS_OWN = frozenset(
    {
        ("PATCH", "/runs/{run_id}"),
        ("POST", "/runs/{run_id}/records"),
        ("POST", "/runs/{run_id}/logs"),
        ("POST", "/runs/{run_id}/end"),
        ("POST", "/runs/{run_id}/cancel"),
    }
)
"""Routes on one run, which must be the caller or below it."""
OPEN = frozenset(
    {
        ("POST", "/runs"),
        ("POST", "/blobs"),
        ("POST", "/snapshots"),
        ("POST", "/datasets"),
        ("POST", "/datasets/{dataset_id}/register"),
        ("POST", "/datastores/{datastore}/files"),
        ("POST", "/models"),
    }
)
"""Routes whose handlers look at the body, or that only add things without a run."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Limits of one request; ``caller`` is None for a user's token, which has none here."""

    platform: Platform
    caller: RunCaller | None

    async def parent(self, request: RunRequest) -> RunRequest:
        """A submission: what a run submits is its child, or that of one of its descendants."""
        if self.caller is None:
            return request
        if request.parent_run_id is None:
            return request.model_copy(update={"parent_run_id": self.caller.run_id})
        await self.family(request.parent_run_id)
        return request

    async def model(self, request: ModelRequest) -> None:
        """A model: of the run's own files or a descendant's, or of uploaded ones."""
        if request.run_id is not None:
            await self.family(request.run_id)

    async def family(self, run_id: str) -> None:
        """Raise NotFoundError unless the run is the caller or below it."""
        if self.caller is None or run_id == self.caller.run_id:
            return
        reply = await self.platform.ask("history", "run-ancestors", AncestorsReply, run_id=run_id)
        if self.caller.run_id not in reply.run_ids:
            raise NotFoundError(
                f"There is no run {run_id[:100]}.", code=RUN_NOT_FOUND, field="run_id"
            )

    def overwrite(self, wanted: bool) -> None:
        """A datastore's files: a run adds, it does not replace."""
        if wanted and self.caller is not None:
            raise _refused("overwrite files of a datastore")


async def scope_of(request: Request, platform: Here) -> Scope:
    """The limits of a request, checked as far as its address tells."""
    caller = getattr(request.state, "run", None)
    scope = Scope(platform, caller if isinstance(caller, RunCaller) else None)
    if scope.caller is None or request.method in SAFE_METHODS:
        return scope
    path = str(getattr(request.scope.get("route"), "path", "")).removeprefix("/api/v1")
    route = (request.method, path)
    if route in OF_ITS_OWN:
        await scope.family(request.path_params["run_id"])
    elif route not in OPEN:
        raise _refused("do this")
    return scope


Within = Annotated[Scope, Depends(scope_of)]


def _refused(what: str) -> HttpError:
    return HttpError(403, "auth.scope", f"A run may not {what}; use a token of your own.")
