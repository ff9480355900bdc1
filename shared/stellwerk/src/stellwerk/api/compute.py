"""Clusters and their nodes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from stellwerk.api.base import Description, View
from stellwerk.runspec import ComputeName, Spec, Tags


class ComputeRequest(Spec):
    """Body of ``POST /api/v1/compute``."""

    name: ComputeName
    vm_size: Annotated[str, StringConstraints(max_length=100)] = "STANDARD_D2_V2"
    min_nodes: Annotated[int, Field(ge=0, le=1000)] = 0
    max_nodes: Annotated[int, Field(ge=1, le=1000)]
    idle_seconds_before_scaledown: Annotated[int, Field(ge=1, le=30 * 24 * 3600)] = 1800
    slots_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    vm_priority: Literal["dedicated", "lowpriority"] = "dedicated"
    description: Description | None = None
    tags: Tags = {}


class ComputePatch(Spec):
    """Body of ``PATCH /api/v1/compute/{name}``; None leaves a value as it is."""

    min_nodes: Annotated[int, Field(ge=0, le=1000)] | None = None
    max_nodes: Annotated[int, Field(ge=1, le=1000)] | None = None
    idle_seconds_before_scaledown: Annotated[int, Field(ge=1, le=30 * 24 * 3600)] | None = None


class NodeView(View):
    """One node of a cluster."""

    node_id: str
    executor_id: str
    state: Literal["preparing", "idle", "running", "leaving", "unusable"]
    runs: tuple[str, ...] = ()


class ComputeView(View):
    """A cluster."""

    name: str
    vm_size: str
    vm_priority: str
    min_nodes: int
    max_nodes: int
    idle_seconds_before_scaledown: int
    slots_per_node: int
    description: str | None = None
    tags: dict[str, str | None] = {}
    current_nodes: int
    target_nodes: int
    queued_runs: int
    nodes: tuple[NodeView, ...] = ()
    created_at: datetime
    modified_at: datetime
    allocation_state: Literal["Steady", "Resizing"] = "Steady"
    message: str | None = None
