"""Settings of the model registry."""

from pydantic import Field

from stellwerk_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The kit's settings and this service's own bounds."""

    run_wait_s: float = Field(
        5.0, ge=0, le=20, description="How long a registration waits to hear of its run's end."
    )
    unsuccessful_days: int = Field(
        45, ge=1, le=3650, description="How long failed and canceled runs are remembered."
    )
