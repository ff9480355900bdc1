"""``python -m stellwerk_history``: run the service."""

from stellwerk_history.app import build
from stellwerk_history.settings import Settings
from stellwerk_kit.service import run

if __name__ == "__main__":
    run("history", Settings, build)
