"""Compute targets: get or create as notebooks do it, what is printed, what is refused."""

import pytest

from azureml.core import ComputeTarget, Workspace
from azureml.core.compute import AksCompute, AmlCompute, ComputeInstance, RemoteCompute
from azureml.core.compute_target import ComputeTargetException
from azureml.exceptions import AzureMLException

STATUS_KEYS = {
    "currentNodeCount", "targetNodeCount", "nodeStateCounts", "allocationState", "allocationStateTransitionTime",
    "errors", "creationTime", "modifiedTime", "provisioningState", "scaleSettings", "vmPriority", "vmSize",
}  # fmt: skip


def test_get_or_create(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ComputeTargetException, match=r"ComputeTargetNotFound: .* gpu-cluster"):
        ComputeTarget(workspace=ws, name="gpu-cluster")
    config = AmlCompute.provisioning_configuration(
        vm_size="STANDARD_NC6", max_nodes="4", min_nodes="0", vm_priority="lowpriority",
        idle_seconds_before_scaledown="300", vnet_name="v", subnet_name="s", vnet_resourcegroup_name="g",
        admin_username="a", admin_user_password="b", remote_login_port_public_access="Enabled",
        identity_type="SystemAssigned", tags={"a": "b"}, location="eastus2",
    )  # fmt: skip
    made = ComputeTarget.create(ws, "gpu-cluster", config)
    made.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
    assert capsys.readouterr().out == (
        "Creating...\nSucceeded\nAmlCompute wait for completion finished\n\n"
        "Minimum number of nodes requested have been provisioned\n"
    )
    made.wait_for_completion(min_node_count="0", timeout_in_minutes="1")
    found = ComputeTarget(workspace=ws, name="gpu-cluster")
    assert type(made) is type(found) is type(ws.compute_targets["gpu-cluster"]) is AmlCompute
    assert (found.type, found.provisioning_state, found.vm_size) == (
        "AmlCompute",
        "Succeeded",
        "STANDARD_NC6",
    )
    status = found.get_status().serialize()
    assert set(status) >= STATUS_KEYS
    assert status["scaleSettings"] == {
        "minNodeCount": 0,
        "maxNodeCount": 4,
        "nodeIdleTimeBeforeScaleDown": "PT300S",
    }
    assert set(status["nodeStateCounts"]) == {
        f"{s}NodeCount"
        for s in ("preparing", "running", "idle", "unusable", "leaving", "preempted")
    }
    assert found.get_status().current_node_count == status["currentNodeCount"]
    assert found.list_nodes() == []
    found.update(min_nodes=0, max_nodes="2", idle_seconds_before_scaledown=60)
    assert found.get_status().scale_settings["maxNodeCount"] == 2
    scale = found.scale_settings
    assert (scale.minimum_node_count, scale.maximum_node_count) == (0, 2)
    assert scale.idle_seconds_before_scaledown == 60
    assert found.status.node_state_counts.idle_node_count == 0
    assert found.created_on <= found.modified_on
    assert "STANDARD_NC6" in {size["name"] for size in AmlCompute.supported_vmsizes(workspace=ws)}
    found.delete()
    assert "gpu-cluster" not in ws.compute_targets


def test_what_is_wrong_is_a_compute_target_exception(ws: Workspace) -> None:
    with pytest.raises(ComputeTargetException, match="max_nodes"):
        AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6")
    with pytest.raises(ComputeTargetException, match="min_nodes: got 'many'"):
        AmlCompute.provisioning_configuration(max_nodes=1, min_nodes="many")
    fine = AmlCompute.provisioning_configuration(max_nodes=1)
    with pytest.raises(AttributeError, match=r"'max_node'; it has .*max_nodes"):
        fine.max_node = 2
    fine.max_nodes = 2
    assert fine.max_nodes == 2
    with pytest.raises(ComputeTargetException, match="name: got 'Not good'"):
        ComputeTarget.create(ws, "Not good", fine)
    for reserved in (
        lambda: ComputeTarget(ws, "local"),
        lambda: ComputeTarget.create(ws, "local", fine),
    ):
        with pytest.raises(ComputeTargetException, match="reserved"):
            reserved()
    assert "local" not in ws.compute_targets
    with pytest.raises(ComputeTargetException, match="at most max_nodes"):
        ComputeTarget.create(
            ws, "small", AmlCompute.provisioning_configuration(max_nodes=1, min_nodes=2)
        )


def test_kinds_that_are_not_here_say_so(ws: Workspace) -> None:
    for use in (
        lambda: AksCompute(ws, "aks"),
        lambda: AksCompute.provisioning_configuration(agent_count=3),
        lambda: ComputeInstance.provisioning_configuration(vm_size="STANDARD_D2_V2"),
        lambda: RemoteCompute.attach_configuration(address="host", ssh_port=22),
        lambda: ComputeTarget.attach(ws, "vm", None),
    ):
        with pytest.raises(ComputeTargetException) as caught:
            use()
        assert isinstance(caught.value, AzureMLException)
    assert not isinstance(ws, AksCompute)
