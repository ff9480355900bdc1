"""Bodies of the REST API, shared by gateway, SDK and the services' request/reply verbs.

Requests refuse unknown fields; views ignore them, so that an older client reads a newer server.
Times are RFC 3339 UTC, durations seconds, sizes bytes.
"""

from stellwerk.api.base import (
    Count,
    Description,
    Page,
    Problem,
    View,
)
from stellwerk.api.blobs import (
    BlobPlan,
    BlobPlanRequest,
    BlobRef,
    BlobUpload,
    SnapshotRequest,
    SnapshotView,
)
from stellwerk.api.compute import (
    ComputePatch,
    ComputeRequest,
    ComputeView,
    NodeView,
)
from stellwerk.api.datasets import (
    DatasetFiles,
    DatasetFileView,
    DatasetPart,
    DatasetPatch,
    DatasetPaths,
    DatasetRegisterRequest,
    DatasetRequest,
    DatasetSource,
    DatasetUrls,
    DatasetView,
    DatastorePath,
    DatastoreUploadRequest,
    DatastoreUploadView,
)
from stellwerk.api.environments import (
    BuildView,
    EnvironmentRequest,
    EnvironmentView,
    Label,
    PrunedEnvironment,
    PruneRequest,
    PruneView,
)
from stellwerk.api.models import (
    ModelLineage,
    ModelName,
    ModelPatch,
    ModelRequest,
    ModelView,
)
from stellwerk.api.platform import (
    InfoView,
)
from stellwerk.api.runs import (
    ErrorView,
    LogView,
    MetricPoint,
    QueueView,
    RunEventView,
    RunFileView,
    RunPatch,
    RunRequest,
    RunView,
)
from stellwerk.api.secrets import (
    MAX_SECRET_BYTES,
    SecretRequest,
    SecretValueView,
    SecretView,
)

__all__ = [
    "MAX_SECRET_BYTES",
    "BlobPlan",
    "BlobPlanRequest",
    "BlobRef",
    "BlobUpload",
    "BuildView",
    "ComputePatch",
    "ComputeRequest",
    "ComputeView",
    "Count",
    "DatasetFileView",
    "DatasetFiles",
    "DatasetPart",
    "DatasetPatch",
    "DatasetPaths",
    "DatasetRegisterRequest",
    "DatasetRequest",
    "DatasetSource",
    "DatasetUrls",
    "DatasetView",
    "DatastorePath",
    "DatastoreUploadRequest",
    "DatastoreUploadView",
    "Description",
    "EnvironmentRequest",
    "EnvironmentView",
    "ErrorView",
    "InfoView",
    "Label",
    "LogView",
    "MetricPoint",
    "ModelLineage",
    "ModelName",
    "ModelPatch",
    "ModelRequest",
    "ModelView",
    "NodeView",
    "Page",
    "Problem",
    "PruneRequest",
    "PruneView",
    "PrunedEnvironment",
    "QueueView",
    "RunEventView",
    "RunFileView",
    "RunPatch",
    "RunRequest",
    "RunView",
    "SecretRequest",
    "SecretValueView",
    "SecretView",
    "SnapshotRequest",
    "SnapshotView",
    "View",
]
