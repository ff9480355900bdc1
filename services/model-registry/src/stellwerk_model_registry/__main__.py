"""``python -m stellwerk_model_registry``: run the service."""

from stellwerk_kit.service import run
from stellwerk_model_registry.app import build
from stellwerk_model_registry.settings import Settings

if __name__ == "__main__":
    run("model-registry", Settings, build)
