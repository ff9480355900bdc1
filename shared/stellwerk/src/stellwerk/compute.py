"""Compute targets: elastic clusters of nodes."""

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from stellwerk.api import ComputePatch, ComputeRequest, ComputeView
from stellwerk.client import segment
from stellwerk.errors import ComputeTargetException, ConflictError, NotFoundError, UserError
from stellwerk.refusals import naming_the_field

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

_LOOK_EVERY_S = 1.0
WAIT_MINUTES = 25.0


class AmlComputeProvisioningConfiguration:
    """What a cluster shall be like; made by ``AmlCompute.provisioning_configuration``.

    Its settings are attributes. Raises AttributeError for a name that is no setting.
    """

    __slots__ = ("settings",)
    settings: dict[str, Any]

    def __init__(self, settings: dict[str, Any]) -> None:
        object.__setattr__(self, "settings", settings)

    def __getattr__(self, name: str) -> Any:
        if name == "settings" or name not in self.settings:
            raise AttributeError(self._unknown(name))
        return self.settings[name]

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.settings:
            raise AttributeError(self._unknown(name))
        self.settings[name] = value

    def _unknown(self, name: str) -> str:
        kind = type(self).__name__
        if name == "settings":  # while it is copied
            return f"{kind!r} object has no attribute {name!r}"
        known = ", ".join(sorted(self.settings))
        return f"{kind!r} object has no attribute {name!r}; it has {known}"


class AmlComputeStatus:
    """How a cluster is doing."""

    def __init__(self, view: ComputeView) -> None:
        self.view = view

    def serialize(self) -> dict[str, Any]:
        """The dictionary that v1 code prints."""
        view = self.view
        states = ("preparing", "running", "idle", "unusable", "leaving")
        counts = {
            f"{state}NodeCount": sum(node.state == state for node in view.nodes) for state in states
        }
        return {
            "currentNodeCount": view.current_nodes,
            "targetNodeCount": view.target_nodes,
            "nodeStateCounts": {**counts, "preemptedNodeCount": 0},
            "allocationState": view.allocation_state,
            "allocationStateTransitionTime": view.modified_at.isoformat(),
            "errors": [{"error": {"message": view.message}}] if view.message else None,
            "creationTime": view.created_at.isoformat(),
            "modifiedTime": view.modified_at.isoformat(),
            "provisioningState": "Succeeded",
            "provisioningStateTransitionTime": None,
            "scaleSettings": {
                "minNodeCount": view.min_nodes,
                "maxNodeCount": view.max_nodes,
                "nodeIdleTimeBeforeScaleDown": f"PT{view.idle_seconds_before_scaledown}S",
            },
            "vmPriority": "LowPriority" if view.vm_priority == "lowpriority" else "Dedicated",
            "vmSize": view.vm_size,
        }


class ComputeTarget:
    """A cluster by name: ``ComputeTarget(workspace, name)`` gives an :class:`AmlCompute`."""

    workspace: "Workspace"
    name: str
    _view: ComputeView

    def __new__(cls, workspace: "Workspace", name: str) -> "AmlCompute":
        """Look the cluster up. Raises ComputeTargetException where there is none."""
        return AmlCompute.of_view(workspace, lookup(workspace, name))

    @staticmethod
    def create(
        workspace: "Workspace",
        name: str,
        provisioning_configuration: AmlComputeProvisioningConfiguration,
    ) -> "AmlCompute":
        """Make a cluster. Raises ComputeTargetException where that is refused."""
        try:
            with naming_the_field():
                settings = provisioning_configuration.settings
                given = {each: value for each, value in settings.items() if value is not None}
                request = ComputeRequest(name=name, **given)
            view = workspace.client.call("POST", "/compute", ComputeView, body=request)
        except (UserError, ConflictError) as error:
            raise ComputeTargetException(
                error.message, code=error.code, field=error.field
            ) from error
        return AmlCompute.of_view(workspace, view)


class AmlCompute(ComputeTarget):
    """An elastic cluster."""

    type = "AmlCompute"

    def __repr__(self) -> str:
        return f"AmlCompute(workspace={self.workspace!r}, name={self.name!r}, type={self.type!r})"

    @classmethod
    def of_view(cls, workspace: "Workspace", view: ComputeView) -> Self:
        """The platform's answer as an object."""
        compute = object.__new__(cls)
        compute.workspace, compute.name, compute._view = workspace, view.name, view
        return compute

    @staticmethod
    def provisioning_configuration(
        vm_size: str = "",
        vm_priority: str = "dedicated",
        min_nodes: int | str = 0,
        max_nodes: int | str | None = None,
        idle_seconds_before_scaledown: int | str | None = None,
        admin_username: str | None = None,
        admin_user_password: str | None = None,
        admin_user_ssh_key: str | None = None,
        vnet_resourcegroup_name: str | None = None,
        vnet_name: str | None = None,
        subnet_name: str | None = None,
        tags: dict[str, str | None] | None = None,
        description: str | None = None,
        remote_login_port_public_access: str | None = None,
        identity_type: str | None = None,
        identity_id: list[str] | None = None,
        location: str | None = None,
        *,
        slots_per_node: int = 1,
    ) -> AmlComputeProvisioningConfiguration:
        """Settings of a new cluster; numbers may be texts. Raises ComputeTargetException.

        Users, networks and identities have no meaning on your own machines and are ignored.
        ``slots_per_node``: how many runs a node works on at once.
        """
        del admin_username, admin_user_password, admin_user_ssh_key
        del vnet_resourcegroup_name, vnet_name, subnet_name
        del remote_login_port_public_access, identity_type, identity_id, location
        if max_nodes is None:
            raise ComputeTargetException(
                "max_nodes is missing; say how many nodes the cluster may have",
                code="compute.invalid",
                field="max_nodes",
            )
        idle = idle_seconds_before_scaledown
        return AmlComputeProvisioningConfiguration(
            {
                "vm_size": vm_size or None,
                "vm_priority": vm_priority.lower(),
                "min_nodes": _number("min_nodes", min_nodes),
                "max_nodes": _number("max_nodes", max_nodes),
                "idle_seconds_before_scaledown": (
                    None if idle is None else _number("idle_seconds_before_scaledown", idle)
                ),
                "slots_per_node": slots_per_node,
                "tags": tags or {},
                "description": description,
            }
        )

    @property
    def provisioning_state(self) -> str:
        """``Succeeded``: a cluster is there as soon as it is accepted."""
        return "Succeeded"

    @property
    def view(self) -> ComputeView:
        """What the platform said last."""
        return self._view

    def refresh_state(self) -> None:
        """Ask the platform. Raises ComputeTargetException where the cluster is gone."""
        self._view = lookup(self.workspace, self.name)

    def get_status(self) -> AmlComputeStatus:
        """The cluster's state now."""
        self.refresh_state()
        return AmlComputeStatus(self._view)

    def wait_for_completion(
        self,
        show_output: bool = False,
        min_node_count: int | str | None = None,
        timeout_in_minutes: float | str | None = None,
        is_delete_operation: bool = False,
    ) -> None:
        """Wait until the cluster has its nodes: ``min_node_count``, by default its minimum.

        At most 25 minutes unless told otherwise; numbers may be texts.
        """
        del is_delete_operation
        out = sys.stdout if show_output else None
        minutes = WAIT_MINUTES if timeout_in_minutes is None else float(timeout_in_minutes)
        deadline = time.monotonic() + 60 * minutes
        self.refresh_state()
        wanted = self._view.min_nodes if min_node_count is None else int(min_node_count)
        if out:
            out.write("Creating...\nSucceeded\n")
        while self._view.current_nodes < wanted and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
            self.refresh_state()
        enough = self._view.current_nodes >= wanted
        if out:
            out.write("AmlCompute wait for completion finished\n\n")
            out.write(
                "Minimum number of nodes requested have been provisioned\n"
                if enough
                else f"Wait timeout has been reached: {self._view.current_nodes} of {wanted} nodes "
                f"are there\n{self._view.message or ''}\n"
            )
            out.flush()

    def list_nodes(self) -> list[dict[str, Any]]:
        """The nodes with their state and the runs on them."""
        self.refresh_state()
        return [
            {
                "nodeId": node.node_id,
                "nodeState": node.state,
                "runId": node.runs[0] if node.runs else None,
                "runIds": list(node.runs),
                "executorId": node.executor_id,
            }
            for node in self._view.nodes
        ]

    def update(
        self,
        min_nodes: int | str | None = None,
        max_nodes: int | str | None = None,
        idle_seconds_before_scaledown: int | str | None = None,
    ) -> None:
        """Change the scale settings; None leaves one as it is, numbers may be texts."""
        given = {
            "min_nodes": min_nodes,
            "max_nodes": max_nodes,
            "idle_seconds_before_scaledown": idle_seconds_before_scaledown,
        }
        with naming_the_field():
            patch = ComputePatch(
                **{name: _number(name, value) for name, value in given.items() if value is not None}
            )
        path = f"/compute/{segment(self.name)}"
        self._view = self.workspace.client.call("PATCH", path, ComputeView, body=patch)

    def delete(self) -> None:
        """Remove the cluster. Raises ConflictError while it has runs."""
        self.workspace.client.call("DELETE", f"/compute/{segment(self.name)}", ComputeView)


def lookup(workspace: "Workspace", name: str) -> ComputeView:
    """The cluster as the platform sees it. Raises ComputeTargetException where there is none."""
    try:
        return workspace.client.get(f"/compute/{segment(name)}", ComputeView)
    except NotFoundError as error:
        raise ComputeTargetException(
            f"ComputeTargetNotFound: Compute Target with name {name} not found in provided "
            "workspace"
        ) from error


def _number(field: str, value: int | str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise ComputeTargetException(
            f"{field}: got {value!r}; it must be a whole number",
            code="compute.invalid",
            field=field,
        ) from error
