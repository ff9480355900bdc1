"""``python -m stellwerk_dataset``: run the service."""

from stellwerk_dataset.app import build
from stellwerk_dataset.settings import Settings
from stellwerk_kit.service import run

if __name__ == "__main__":
    run("dataset", Settings, build)
