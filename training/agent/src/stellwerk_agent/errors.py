"""What the in-run library raises."""

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from typing import Any

spoken_as = None  # type: Any
"""Set by a compatibility layer: the subclass to raise for one of these classes."""


class UserError(ValueError):
    """A call cannot mean anything useful; the message says what to change."""

    def __new__(cls, *args: "Any") -> "Any":
        """Make an object of the class, or of the subclass that `spoken_as` chooses."""
        chosen = spoken_as(cls, None) if spoken_as else cls  # type: Any
        return ValueError.__new__(chosen, *args)


class RunEnvironmentError(RuntimeError):
    """There is no run around this process, and `allow_offline=False` asked for one."""

    def __new__(cls, *args: "Any") -> "Any":
        """Make an object of the class, or of the subclass that `spoken_as` chooses."""
        chosen = spoken_as(cls, None) if spoken_as else cls  # type: Any
        return RuntimeError.__new__(chosen, *args)
