"""Settings of the keyvault."""

from pathlib import Path

from pydantic import Field

from stellwerk_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The kit's settings and where the master keys lie."""

    master_keys_file: Path = Field(
        description="JSON list of master keys, readable by its owner alone; "
        "`python -m stellwerk_keyvault.keys FILE` makes one."
    )
    max_secrets: int = Field(10_000, ge=1, description="How many secrets are kept at most.")
