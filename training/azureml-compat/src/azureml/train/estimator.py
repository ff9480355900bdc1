"""The v1 SDK's estimators: names that can be imported and refuse to be used."""

from azureml._refusal import refused

REASON = (
    "estimators were deprecated in v1 itself and do not exist here. Use "
    "azureml.core.ScriptRunConfig(source_directory, script, arguments, compute_target, "
    "environment), with PyTorchConfiguration, MpiConfiguration or TensorflowConfiguration as its "
    "distributed_job_config for several processes."
)

Estimator = refused("Estimator", REASON)
MMLBaseEstimator = refused("MMLBaseEstimator", REASON)
