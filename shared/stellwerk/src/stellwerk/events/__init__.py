"""The events of the platform: one frozen class each, in one registry."""

from stellwerk.events.archive import ArchiveFailed, RunArchived
from stellwerk.events.attempt import (
    AttemptExited,
    AttemptProgressed,
    AttemptStarted,
    ExitSummary,
    LogClosure,
    StartInfo,
    StoredOutput,
)
from stellwerk.events.base import MAX_EVENT_BYTES, REGISTRY, Event
from stellwerk.events.dataset import (
    DatasetFailed,
    DatasetProduced,
    DatasetReady,
    DatasetRegistered,
    ProducedDataset,
    ResolvedInput,
)
from stellwerk.events.envelope import Envelope, UnknownEventTypeError, decode
from stellwerk.events.image import ImageBuildStarted, ImageFailed, ImageInfo, ImageReady
from stellwerk.events.model import ModelDeleted, ModelRegistered
from stellwerk.events.node import Gpu, NodeDraining, NodeJoined, NodeResources, NodeScaled
from stellwerk.events.pool import NodeLost, PoolTargetSet
from stellwerk.events.run import (
    AttemptLost,
    RunAssigned,
    RunCanceled,
    RunCompleted,
    RunFailed,
    RunFinalizing,
    RunPreparing,
    RunProvisioning,
    RunQueued,
    RunRetrying,
    RunStarted,
    RunStopRequested,
)
from stellwerk.events.submission import RunCancelRequested, RunEndReported, RunSubmitted

__all__ = [
    "MAX_EVENT_BYTES",
    "REGISTRY",
    "ArchiveFailed",
    "AttemptExited",
    "AttemptLost",
    "AttemptProgressed",
    "AttemptStarted",
    "DatasetFailed",
    "DatasetProduced",
    "DatasetReady",
    "DatasetRegistered",
    "Envelope",
    "Event",
    "ExitSummary",
    "Gpu",
    "ImageBuildStarted",
    "ImageFailed",
    "ImageInfo",
    "ImageReady",
    "LogClosure",
    "ModelDeleted",
    "ModelRegistered",
    "NodeDraining",
    "NodeJoined",
    "NodeLost",
    "NodeResources",
    "NodeScaled",
    "PoolTargetSet",
    "ProducedDataset",
    "ResolvedInput",
    "RunArchived",
    "RunAssigned",
    "RunCancelRequested",
    "RunCanceled",
    "RunCompleted",
    "RunEndReported",
    "RunFailed",
    "RunFinalizing",
    "RunPreparing",
    "RunProvisioning",
    "RunQueued",
    "RunRetrying",
    "RunStarted",
    "RunStopRequested",
    "RunSubmitted",
    "StartInfo",
    "StoredOutput",
    "UnknownEventTypeError",
    "decode",
]
