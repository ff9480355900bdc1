"""``python -m stellwerk_scheduler``: run the service."""

from stellwerk_kit.service import run
from stellwerk_scheduler.app import build
from stellwerk_scheduler.settings import Settings

if __name__ == "__main__":
    run("scheduler", Settings, build)
