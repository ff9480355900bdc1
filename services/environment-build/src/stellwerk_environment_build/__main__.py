"""``python -m stellwerk_environment_build``."""

from stellwerk_environment_build.app import build
from stellwerk_environment_build.settings import Settings
from stellwerk_kit.service import run

if __name__ == "__main__":
    run("environment-build", Settings, build)
