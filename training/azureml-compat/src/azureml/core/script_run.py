"""The v1 SDK's ScriptRun: what ``Experiment.submit`` returns. Runs have one class here."""

from azureml.core.run import Run as ScriptRun

__all__ = ["ScriptRun"]
