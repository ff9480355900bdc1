"""The border between Stellwerk's errors and the v1 SDK's exceptions.

Once a module of ``azureml.core`` is imported, every error of the SDK is raised as an object of
two classes: the native one, which Stellwerk's own code catches, and the v1 exception of the same
meaning, which the user's code catches. Nothing is wrapped, so tracebacks stay short and the
message, ``code`` and ``field`` stay as they are. Works in every Python that a run may have.
"""

from typing import Any

from azureml import exceptions as v1
from stellwerk import errors as native
from stellwerk_agent import errors as inside

BY_CLASS: "dict[type[Exception], type[v1.AzureMLException]]" = {
    native.StellwerkError: v1.AzureMLException,
    native.UserError: v1.UserErrorException,
    native.NotFoundError: v1.UserErrorException,
    native.ConflictError: v1.UserErrorException,
    native.DatasetTimestampMissingError: v1.DatasetTimestampMissingError,
    native.AuthenticationError: v1.AuthenticationException,
    native.ServiceUnavailableError: v1.ServiceException,
    native.ComputeTargetException: v1.ComputeTargetException,
    native.RunFailedError: v1.ActivityFailedException,
    native.StreamingInterruptedError: v1.ExperimentExecutionException,
    native.ProtocolError: v1.ServiceException,
    inside.UserError: v1.UserErrorException,
    inside.RunEnvironmentError: v1.RunEnvironmentException,
}
"""The v1 exception of each native class; a class that is not here has that of its base."""

BY_CODE: "dict[str, type[v1.AzureMLException]]" = {
    "compute.builtin": v1.ComputeTargetException,
    "compute.exists": v1.ComputeTargetException,
    "compute.in_use": v1.ComputeTargetException,
    "compute.not_found": v1.ComputeTargetException,
    "compute.sizes": v1.ComputeTargetException,
    "model.path_not_found": v1.ModelPathNotFoundException,
    "source.entrypoint": v1.ExperimentExecutionException,
    "source.too_large": v1.SnapshotException,
}
"""Where the code of a native error says more than its class."""


_joined: "dict[tuple[type, type], type[Exception]]" = {}


def speak_v1() -> None:
    """Let native errors be v1 exceptions as well, from now on."""
    native.spoken_as = _both
    inside.spoken_as = _both


def _both(raised: "type[Exception]", code: "str | None") -> "type[Exception]":
    """The class to raise instead of ``raised``: itself and its v1 exception in one."""
    if issubclass(raised, v1.AzureMLException):
        return raised
    known = BY_CODE.get(code or "") or next(BY_CLASS[c] for c in raised.__mro__ if c in BY_CLASS)
    if (raised, known) not in _joined:
        # Whoever comes first takes the arguments of the constructor.
        takes_code = issubclass(raised, native.StellwerkError)
        bases = (raised, known) if takes_code else (known, raised)
        content = {
            "__module__": known.__module__,
            "__reduce__": lambda self: (_again, (raised, self.args, vars(self))),
        }
        _joined[raised, known] = type(known.__name__, bases, content)
    return _joined[raised, known]


def _again(
    raised: "type[Exception]", args: "tuple[object, ...]", state: "dict[str, object]"
) -> Any:
    """The error that another process pickled."""
    error = raised.__new__(raised, *args)
    vars(error).update(state)
    return error
