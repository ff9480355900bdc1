"""Names of the v1 SDK that exist, so that imports work, and refuse to be used."""

from typing import Any

from azureml.exceptions import AzureMLException, UserErrorException


class Refused(type):
    """Class of refused classes: calling one, or asking it for anything, says why and what to do."""

    reason: str
    exception: "type[AzureMLException]" = UserErrorException

    def __call__(cls, *_args: object, **_kwargs: object) -> object:
        raise cls.exception(f"{cls.__name__}: {cls.reason}")

    def __getattr__(cls, name: str) -> object:
        if name.startswith("_"):  # what inspect, copy or a notebook asks every object for
            raise AttributeError(name)
        raise cls.exception(f"{cls.__name__}.{name}: {cls.reason}")


def refused(name: str, reason: str) -> Any:
    """A refused class, or what looks like one from outside: a function."""
    return Refused(name, (), {"reason": reason, "__doc__": "Refused."})
