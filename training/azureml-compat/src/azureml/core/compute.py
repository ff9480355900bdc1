"""The v1 SDK's compute targets: elastic clusters, and the kinds that do not exist here."""

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from azureml._refusal import Refused
from azureml.exceptions import ComputeTargetException
from stellwerk import compute as native
from stellwerk.api import ComputeView
from stellwerk.compute import AmlComputeProvisioningConfiguration

if TYPE_CHECKING:
    from azureml.core.workspace import Workspace
    from stellwerk import workspace as native_workspace

RESERVED = "local"
"""The target that needs no cluster; it cannot be looked up or made."""

_CAPITAL = re.compile("_([a-z])")


class Facts(dict[str, Any]):
    """What ``serialize()`` says, its keys also as attributes: snake case, as v1's objects had."""

    def __getattr__(self, name: str) -> Any:
        key = _CAPITAL.sub(lambda found: found[1].upper(), name)
        if key not in self:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return Facts(self[key]) if isinstance(self[key], dict) else self[key]

    def serialize(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return dict(self)


class ScaleSettings(Facts):
    """How far a cluster grows, and when a node without a run leaves."""

    def __init__(self, view: ComputeView) -> None:
        super().__init__(native.AmlComputeStatus(view).serialize()["scaleSettings"])
        self._idle = view.idle_seconds_before_scaledown

    @property
    def minimum_node_count(self) -> int:
        """Nodes that stay."""
        return int(self["minNodeCount"])

    @property
    def maximum_node_count(self) -> int:
        """Nodes at most."""
        return int(self["maxNodeCount"])

    @property
    def idle_seconds_before_scaledown(self) -> int:
        """Seconds until a node without a run leaves."""
        return self._idle


class AmlComputeStatus(native.AmlComputeStatus):
    """How a cluster is doing: ``serialize()``, or one of its keys as an attribute, snake case."""

    def __repr__(self) -> str:
        return str(self.serialize())

    @property
    def scale_settings(self) -> ScaleSettings:
        """How far the cluster grows."""
        return ScaleSettings(self.view)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "view":
            raise AttributeError(name)
        return getattr(Facts(self.serialize()), name)


class ComputeTarget(native.ComputeTarget):
    """``ComputeTarget(workspace, name)`` is an :class:`AmlCompute`.

    Raises ComputeTargetException where there is no cluster of this name.
    """

    def __new__(cls, workspace: "Workspace", name: str) -> "AmlCompute":
        """Look the cluster up."""
        _not_reserved(name)
        return AmlCompute.of_view(workspace, native.lookup(workspace, name))

    @staticmethod
    def create(
        workspace: "native_workspace.Workspace",
        name: str,
        provisioning_configuration: AmlComputeProvisioningConfiguration,
    ) -> "AmlCompute":
        """Make a cluster. Raises ComputeTargetException where that is refused."""
        _not_reserved(name)
        made = native.ComputeTarget.create(workspace, name, provisioning_configuration)
        return AmlCompute.of_view(workspace, made.view)

    @staticmethod
    def list(workspace: "Workspace") -> "list[AmlCompute]":
        """All clusters."""
        return [*workspace.compute_targets.values()]

    @staticmethod
    def attach(workspace: object, name: str, attach_configuration: object) -> None:
        """Refused: machines join the platform by running an executor."""
        del workspace, attach_configuration
        raise ComputeTargetException(f"attach {name}: {_NO_ATTACHING}")


class AmlCompute(ComputeTarget, native.AmlCompute):
    """An elastic cluster."""

    workspace: "Workspace"

    @property
    def id(self) -> str:
        """The cluster's address within the platform."""
        return f"{self.workspace.get_details()['id']}/computes/{self.name}"

    @property
    def location(self) -> str:
        """``local``."""
        return self.workspace.location

    @property
    def description(self) -> str | None:
        """The description given."""
        return self.view.description

    @property
    def tags(self) -> dict[str, str | None]:
        """The tags given."""
        return dict(self.view.tags)

    @property
    def vm_size(self) -> str:
        """The size asked for. Nodes are your own machines: it is kept, and chooses nothing."""
        return self.view.vm_size

    @property
    def vm_priority(self) -> str:
        """``Dedicated`` or ``LowPriority``."""
        priority: str = AmlComputeStatus(self.view).serialize()["vmPriority"]
        return priority

    @property
    def scale_settings(self) -> ScaleSettings:
        """How far the cluster grows, as last seen."""
        return self.status.scale_settings

    @property
    def created_on(self) -> datetime:
        """When it was made."""
        return self.view.created_at

    @property
    def modified_on(self) -> datetime:
        """When it was changed last."""
        return self.view.modified_at

    cluster_location = location
    cluster_resource_id: str | None = None
    """None, as are users, networks and identities: nodes are your own machines."""
    admin_username: str | None = None
    admin_user_password: str | None = None
    admin_user_ssh_key: str | None = None
    subnet_id: str | None = None
    identity_type: str | None = None
    identity_id: list[str] | None = None

    @property
    def provisioning_errors(self) -> object:
        """None: what is wrong with nodes stands in ``get_status()``."""
        return None

    @property
    def status(self) -> AmlComputeStatus:
        """The state as last seen."""
        return AmlComputeStatus(self.view)

    def get_status(self) -> AmlComputeStatus:
        """The cluster's state now."""
        self.refresh_state()
        return self.status

    def serialize(self) -> dict[str, Any]:
        """The cluster as a dictionary."""
        return {
            "id": self.id,
            "name": self.name,
            "location": self.location,
            "tags": self.tags,
            "properties": {
                "description": self.description,
                "computeType": self.type,
                "computeLocation": self.location,
                "provisioningState": self.provisioning_state,
                "provisioningErrors": None,
                "isAttachedCompute": False,
                "properties": self.status.serialize(),
            },
        }

    @staticmethod
    def supported_vmsizes(
        workspace: "Workspace", location: str | None = None
    ) -> "list[dict[str, Any]]":
        """Sizes in use here: every name is accepted, and nodes are your own machines."""
        del location
        used = {each.vm_size for each in workspace.compute_targets.values()}
        return [{"name": name} for name in sorted({*used, "STANDARD_D2_V2", "STANDARD_NC6"})]


_NO_ATTACHING = (
    "machines are not attached from here: a machine joins the platform by running an executor on "
    "it, and a cluster is made with AmlCompute.provisioning_configuration"
)


class _Elsewhere(metaclass=Refused):
    """A kind of compute that only exists in the cloud."""

    exception = ComputeTargetException
    reason = "this kind of compute does not exist on your own machines; use AmlCompute"


class AksCompute(_Elsewhere):
    """Refused."""


class ComputeInstance(_Elsewhere):
    """Refused."""


class KubernetesCompute(_Elsewhere):
    """Refused."""


class DatabricksCompute(_Elsewhere):
    """Refused."""


class DataFactoryCompute(_Elsewhere):
    """Refused."""


class RemoteCompute(_Elsewhere):
    """Refused."""

    reason = _NO_ATTACHING


def _not_reserved(name: str) -> None:
    if name == RESERVED:
        raise ComputeTargetException(
            f"name: {name!r} is reserved for the target that needs no cluster; give it to "
            "ScriptRunConfig(compute_target='local')"
        )


__all__ = [
    "AksCompute",
    "AmlCompute",
    "ComputeInstance",
    "ComputeTarget",
    "ComputeTargetException",
    "DataFactoryCompute",
    "DatabricksCompute",
    "KubernetesCompute",
    "RemoteCompute",
]
