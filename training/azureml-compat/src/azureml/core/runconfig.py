"""The v1 SDK's run configurations."""

from azureml._refusal import Refused


class RunConfiguration(metaclass=Refused):
    """Refused."""

    reason = "give ScriptRunConfig its arguments instead"
