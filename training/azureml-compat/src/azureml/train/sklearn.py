"""The v1 SDK's estimator for scikit-learn: a name that can be imported and refuses to be used."""

from azureml._refusal import refused
from azureml.train.estimator import REASON

SKLearn = refused("SKLearn", REASON)
