"""Which end of an attempt is whose fault, and whether it is tried again. Pure, and total."""

from dataclasses import dataclass
from typing import Literal

from stellwerk.events import ExitSummary
from stellwerk.events.attempt import ExitReason
from stellwerk_scheduler.model import Failure, Limits, Run

Budget = Literal["none", "user", "infrastructure"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Who pays for another try, and the failure's code when nobody does."""

    budget: Budget
    code: str
    text: str


RULES: dict[ExitReason, Rule] = {
    "exited": Rule("user", "run.exit_code", "the program ended with exit code {exit_code}"),
    "signaled": Rule("user", "run.signaled", "the program was ended by signal {signal}"),
    "oom": Rule("user", "run.oom", "the program used more memory than it may"),
    "launch-failed": Rule("user", "run.launch_failed", "the program could not be started"),
    "timeout": Rule("none", "run.timeout", "the run took longer than max_duration_s"),
    "canceled": Rule("infrastructure", "run.stopped", "the attempt was stopped on its node"),
    "superseded": Rule("infrastructure", "run.superseded", "the attempt was given up"),
    "lease-expired": Rule("infrastructure", "run.lost", "the node lost touch with the scheduler"),
    "disk-full": Rule("infrastructure", "node.disk_full", "the node's disk is full"),
    "environment-missing": Rule(
        "infrastructure", "env.missing", "the environment is not on the node"
    ),
    "input-failed": Rule("infrastructure", "run.input_failed", "an input could not be provided"),
    "outputs-failed": Rule(
        "infrastructure", "run.outputs_failed", "the outputs could not be stored"
    ),
    "shim-lost": Rule("infrastructure", "run.shim_lost", "the process that watches it was lost"),
}
"""Exit reason → rule. The user's budget is ``spec.max_retries``, ours ``Limits.infra_retries``."""

LOST = Rule("infrastructure", "lost", "attempt {attempt} on node {node} gave no sign of life")
STUCK = Rule("infrastructure", "timeout.starting", "attempt {attempt} did not start in time")


def failure_of(summary: ExitSummary) -> Failure:
    """The failure that an exit means."""
    rule = RULES[summary.reason]
    if summary.message and summary.reason in {"exited", "signaled"}:
        return Failure(rule.code, summary.message[:2000])  # it says the rule's text, and whose
    text = rule.text.format(exit_code=summary.exit_code, signal=summary.signal)
    detail = f": {summary.message}" if summary.message else ""
    return Failure(rule.code, f"{text}{detail}"[:2000])


def left(run: Run, budget: Budget, limits: Limits) -> bool:
    """Whether another try is paid for."""
    if budget == "user":
        return run.user_retries < run.spec.max_retries
    return budget == "infrastructure" and run.infra_retries < limits.infra_retries


def delay_s(run: Run, budget: Budget, limits: Limits) -> float:
    """Seconds to wait before the next try: longer after each."""
    used = run.user_retries if budget == "user" else run.infra_retries
    return limits.retry_delays_s[min(used, len(limits.retry_delays_s) - 1)]
