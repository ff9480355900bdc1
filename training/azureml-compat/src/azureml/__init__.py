"""Namespace of the v1 SDK's import paths; other distributions may add packages to it."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
