# The first notebook: which workspace, is it there, its clusters.
import os

import azureml.core
from azureml.core import Workspace

print("You are using version", azureml.core.VERSION, "of the Azure ML SDK")
subscription_id = os.getenv("SUBSCRIPTION_ID", default="<my-subscription-id>")
resource_group = os.getenv("RESOURCE_GROUP", default="<my-resource-group>")
workspace_name = os.getenv("WORKSPACE_NAME", default="<my-workspace-name>")
workspace_region = os.getenv("WORKSPACE_REGION", default="eastus2")
# %%
try:
    ws = Workspace(subscription_id=subscription_id, resource_group=resource_group, workspace_name=workspace_name)
    ws.write_config()
    raise SystemExit("a placeholder was taken for a workspace")
except Exception as e:
    print("Workspace not accessible. Change your parameters or create a new workspace below")
# %%
workspace_name, resource_group, subscription_id = "my-workspace", "my-group", "11111111-2222-3333-4444-555555555555"
ws = Workspace.create(name=workspace_name, subscription_id=subscription_id, resource_group=resource_group, location=workspace_region, create_resource_group=True, sku="basic", exist_ok=True)
ws.get_details()
ws.write_config()
# %%
ws = Workspace.from_config()
print("Workspace name: " + ws.name, "Azure region: " + ws.location, "Subscription id: " + ws.subscription_id, "Resource group: " + ws.resource_group, sep="\n")
assert (ws.name, ws.subscription_id, ws.resource_group) == (workspace_name, subscription_id, resource_group)
ws
# %%
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.compute_target import ComputeTargetException

for name, size in (("cpu-cluster-c", "STANDARD_D2_V2"), ("gpu-cluster-c", "STANDARD_NC6S_V3")):
    try:
        cluster = ComputeTarget(workspace=ws, name=name)
        print("Found existing " + name)
    except ComputeTargetException:
        print("Creating new " + name)
        compute_config = AmlCompute.provisioning_configuration(vm_size=size, min_nodes=0, max_nodes=4)
        cluster = ComputeTarget.create(ws, name, compute_config)
    cluster.wait_for_completion(show_output=True)
# %%
for name, target in ws.compute_targets.items():
    print(name, target.type, target.get_status().serialize()["scaleSettings"])
for name in ("cpu-cluster-c", "gpu-cluster-c"):
    ComputeTarget(ws, name).delete()
ws.get_default_datastore()
# %%
from azureml.core.authentication import AzureCliAuthentication, InteractiveLoginAuthentication, MsiAuthentication, ServicePrincipalAuthentication

for auth in (InteractiveLoginAuthentication(tenant_id="a-tenant"), InteractiveLoginAuthentication(force=True), AzureCliAuthentication(), MsiAuthentication(), ServicePrincipalAuthentication(tenant_id="t", service_principal_id="p", service_principal_password="s")):
    ws = Workspace.from_config(auth=auth)
    assert auth.get_authentication_header()["Authorization"].startswith("Bearer ")
    ws = Workspace(subscription_id, resource_group, workspace_name, auth=auth)
    print("Found workspace {} at location {}".format(ws.name, ws.location))
