"""The v1 SDK's estimators for frameworks: names that can be imported and refuse to be used."""

from azureml._refusal import refused
from azureml.train.estimator import REASON

Chainer = refused("Chainer", REASON)
PyTorch = refused("PyTorch", REASON)
TensorFlow = refused("TensorFlow", REASON)

Gloo = refused("Gloo", REASON)
Mpi = refused("Mpi", REASON)
Nccl = refused("Nccl", REASON)
ParameterServer = refused("ParameterServer", REASON)
