"""TensorBoard on the logs of runs."""

from azureml._border import speak_v1
from azureml.tensorboard._tensorboard import Tensorboard

speak_v1()

__all__ = ["Tensorboard"]
