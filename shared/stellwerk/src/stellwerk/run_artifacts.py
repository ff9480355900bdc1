"""Files of runs as places of a datastore, where v1 code looks for them.

``workspaceartifactstore`` has no files of its own: its path ``ExperimentRun/dcid.<run id>/outputs``
means what the run left there. A dataset of it costs no upload, the contents are stored already.
"""

import re

from stellwerk.answers import FileList
from stellwerk.api import DatasetFiles
from stellwerk.client import Client, segment
from stellwerk.errors import NotFoundError
from stellwerk.manifest import ManifestEntry

ARTIFACT_STORE = "workspaceartifactstore"

_PATH = re.compile(r"ExperimentRun/dcid\.([a-z0-9-]{1,40})(?:/(.*))?")


def artifact_path(run_id: str, prefix: str) -> str:
    """Where ``prefix`` of a run's files lies in the artifact store."""
    return f"ExperimentRun/dcid.{run_id}/{prefix}"


def artifacts(client: Client, path: str) -> DatasetFiles:
    """The files at a path of the artifact store. Raises NotFoundError where there are none."""
    found = _PATH.fullmatch(path.strip("/"))
    if found is None:
        raise NotFoundError(
            f"path: {path!r} is no path of datastore {ARTIFACT_STORE!r}; they look like "
            "ExperimentRun/dcid.<run id>/outputs",
            code="datastore.path_not_found",
            field="path",
        )
    run_id, prefix = found[1], (found[2] or "").removesuffix("**").strip("/")
    files = client.get(f"/runs/{segment(run_id)}/files", FileList).files
    chosen = [
        ManifestEntry(path=each.path, size=each.size, sha256=each.sha256)
        for each in files
        if each.sha256 and (not prefix or f"{each.path}/".startswith(f"{prefix}/"))
    ]
    if not chosen:
        raise NotFoundError(
            f"path: run {run_id} has no files at {prefix or '/'!r}",
            code="datastore.path_not_found",
            field="path",
        )
    one_file = any(each.path == prefix for each in chosen)
    return DatasetFiles(entries=tuple(chosen), base=None if one_file or not prefix else prefix)
