"""Names of a run's logs, as services give them and clients ask for them."""

STD_LOG = "user_logs/std_log.txt"
BUILD_LOG = "azureml-logs/20_image_build_log.txt"
_EARLIER = "user_logs/attempt_"


def put_aside(path: str, attempt: int) -> str:
    """The name that a log of an attempt has once a later attempt has taken ``path``."""
    return f"{_EARLIER}{attempt}/{'std_log.txt' if path == STD_LOG else path}"


def begins_anew(path: str) -> bool:
    """Whether each attempt writes a log of this name."""
    return path != BUILD_LOG and not path.startswith(_EARLIER)
