"""Every error of the SDK and the contracts, in one tree.

StellwerkError
├── UserError                 what the caller gave is wrong; carries field and code
│   ├── NotFoundError         names something that does not exist
│   ├── DatasetTimestampMissingError  v1 name: no column says when a row happened
│   └── ConflictError         exists already, or is in a state that forbids it
├── AuthenticationError       missing or wrong token
├── ServiceUnavailableError   the platform cannot answer now; retry after ``retry_after_s``
├── ComputeTargetException    v1 name: the cluster is not there or cannot be made
├── RunFailedError            a run ended as Failed and the caller asked for an exception
├── StreamingInterruptedError the caller stopped watching a run; the run itself goes on
└── ProtocolError             an answer or a message that breaks the contract

Annotations are texts: a run may have a Python that is older than the SDK.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

spoken_as: "Callable[[type[Exception], str | None], type[Exception]] | None" = None
"""Set by a compatibility layer: the subclass to raise for a class of this tree and a code."""


class StellwerkError(Exception):
    """Root of the tree.

    ``code`` is stable and meant for programs; the message is meant for people.
    """

    code = "error"

    def __new__(cls, *args: object, **kwargs: Any) -> "Self":
        """Make an object of the class, or of the subclass that ``spoken_as`` chooses."""
        chosen: Any = spoken_as(cls, kwargs.get("code") or cls.code) if spoken_as else cls
        error: Self = super().__new__(chosen, *args)
        return error

    def __init__(
        self, message: str, *, code: "str | None" = None, field: "str | None" = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.field = field


class UserError(StellwerkError):
    """What the caller gave is wrong; the message says what to do."""

    code = "invalid"


class NotFoundError(UserError):
    """The named thing does not exist."""

    code = "not_found"


class ConflictError(UserError):
    """The thing exists already, or its state forbids the request."""

    code = "conflict"


class DatasetTimestampMissingError(UserError):
    """The dataset has no column that says when a row happened."""

    code = "dataset.timestamp_missing"


class AuthenticationError(StellwerkError):
    """The token is missing, wrong or expired."""

    code = "auth.required"


class ServiceUnavailableError(StellwerkError):
    """The platform cannot answer now. ``retry_after_s`` is its own advice, in seconds."""

    code = "unavailable"

    def __init__(
        self, message: str, *, code: "str | None" = None, retry_after_s: float = 1.0
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class ComputeTargetException(StellwerkError):  # noqa: N818 - the v1 SDK's name
    """The compute target does not exist or cannot be provisioned."""

    code = "compute.not_found"


class RunFailedError(StellwerkError):
    """A run ended as Failed. ``details`` is the run's ``get_details()``."""

    code = "run.failed"

    def __init__(self, message: str, details: "dict[str, Any]") -> None:
        super().__init__(message)
        self.details = details


class StreamingInterruptedError(StellwerkError):
    """Watching a run was interrupted with Ctrl-C. The run goes on."""

    code = "run.streaming_interrupted"


class ProtocolError(StellwerkError):
    """An answer or a message that breaks the contract."""

    code = "protocol"
