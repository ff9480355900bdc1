"""HyperDrive and estimators: names that can be imported and refuse to be used."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
