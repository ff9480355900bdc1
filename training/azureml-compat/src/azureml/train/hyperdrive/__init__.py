"""The v1 SDK's HyperDrive: names that can be imported and refuse to be used."""

from azureml._refusal import refused

_REASON = (
    "Stellwerk has no HyperDrive yet; it comes later. Until then submit one run for each set of "
    "parameters, for example with Run.submit_child() below a run of Experiment.start_logging()."
)

HyperDriveConfig = refused("HyperDriveConfig", _REASON)
HyperDriveRun = refused("HyperDriveRun", _REASON)
PrimaryMetricGoal = refused("PrimaryMetricGoal", _REASON)

HyperParameterSampling = refused("HyperParameterSampling", _REASON)
BayesianParameterSampling = refused("BayesianParameterSampling", _REASON)
GridParameterSampling = refused("GridParameterSampling", _REASON)
RandomParameterSampling = refused("RandomParameterSampling", _REASON)

EarlyTerminationPolicy = refused("EarlyTerminationPolicy", _REASON)
BanditPolicy = refused("BanditPolicy", _REASON)
MedianStoppingPolicy = refused("MedianStoppingPolicy", _REASON)
NoTerminationPolicy = refused("NoTerminationPolicy", _REASON)
TruncationSelectionPolicy = refused("TruncationSelectionPolicy", _REASON)

choice = refused("choice", _REASON)
lognormal = refused("lognormal", _REASON)
loguniform = refused("loguniform", _REASON)
normal = refused("normal", _REASON)
qlognormal = refused("qlognormal", _REASON)
qloguniform = refused("qloguniform", _REASON)
qnormal = refused("qnormal", _REASON)
quniform = refused("quniform", _REASON)
randint = refused("randint", _REASON)
uniform = refused("uniform", _REASON)
