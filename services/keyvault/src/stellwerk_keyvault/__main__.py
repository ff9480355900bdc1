"""``python -m stellwerk_keyvault``: run the service."""

from stellwerk_keyvault.app import build
from stellwerk_keyvault.settings import Settings
from stellwerk_kit.service import run

if __name__ == "__main__":
    run("keyvault", Settings, build)
