"""Starts the gateway: ``python -m stellwerk_gateway``."""

from stellwerk_gateway.app import build
from stellwerk_gateway.settings import Settings
from stellwerk_kit.service import run

if __name__ == "__main__":
    run("gateway", Settings, build)
