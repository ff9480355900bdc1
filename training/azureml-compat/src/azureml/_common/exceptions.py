"""Second import path of the exceptions."""

from azureml.exceptions import *  # noqa: F403 - the very same names
