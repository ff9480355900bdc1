"""HyperDrive and estimators, which do not exist here yet: importing them says so."""

raise ImportError(
    "azureml.train: Stellwerk has no HyperDrive and no estimators yet. Submit one run for each "
    "set of parameters; for an estimator use azureml.core.ScriptRunConfig."
)
