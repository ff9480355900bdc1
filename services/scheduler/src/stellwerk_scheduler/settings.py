"""Settings of the scheduler."""

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from stellwerk_kit.settings import ServiceSettings
from stellwerk_scheduler.model import Limits

TEST_LIMITS = Limits(
    lease_s=4.0,
    prepare_s=600.0,
    starting_s=20.0,
    running_margin_s=5.0,
    finalizing_s=60.0,
    cancel_s=5.0,
    resend_s=1.0,
    resend_max_s=10.0,
    stop_resend_s=0.2,
    stop_resend_max_s=2.0,
    retry_delays_s=(0.1, 0.3, 1.0),
)
Seconds = float | None


class Settings(ServiceSettings):
    """Timers are None for the time profile's own value; all are seconds."""

    lease_s: Seconds = Field(None, gt=0, le=3600, description="Length of a lease.")
    prepare_s: Seconds = Field(None, gt=0, description="Limit of Preparing.")
    starting_s: Seconds = Field(
        None, gt=0, description="Limit of Starting; inputs get more by their size."
    )
    finalizing_s: Seconds = Field(None, gt=0, description="Limit of Finalizing.")
    cancel_s: Seconds = Field(
        None, gt=0, description="How long a stop may take beyond the run's own grace_s."
    )
    infra_retries: int | None = Field(
        None, ge=0, le=10, description="Further attempts after failures that are not the user's."
    )
    local_max_nodes: int = Field(2, ge=1, le=1000, description="Nodes of the pool `local`.")
    local_idle_s: int = Field(60, ge=1, description="Idle seconds of a node of the pool `local`.")
    executor_tokens: Path | None = Field(
        None,
        description="JSON file {executor id: token} for the lease pages of the operations port; "
        "without it they are open, which is right on loopback only.",
    )

    def limits(self) -> Limits:
        """Timers and budgets of runs."""
        base = TEST_LIMITS if self.test_profile else Limits()
        names = ("lease_s", "prepare_s", "starting_s", "finalizing_s", "cancel_s", "infra_retries")
        given = {name: getattr(self, name) for name in names}
        return replace(base, **{name: value for name, value in given.items() if value is not None})

    @property
    def reconcile_s(self) -> float:
        """Interval of the reconcile loop."""
        return 0.2 if self.test_profile else 2.0

    @property
    def scale_answer_s(self) -> float:
        """How long an executor may take to answer PoolTargetSet before it is asked again."""
        return 1.0 if self.test_profile else 20.0
