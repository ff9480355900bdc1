"""What the in-run library raises."""


class UserError(ValueError):
    """A call cannot mean anything useful; the message says what to change."""


class RunEnvironmentError(RuntimeError):
    """There is no run around this process, and `allow_offline=False` asked for one."""
