"""Who may say and hear what on the bus, derived from the event registry and the topology.

Each service publishes only the facts it owns, reads only its own consumers, answers only its own
verbs. Clients may submit, ask to cancel, and read events and logs. ``python -m
stellwerk_embedded.permissions`` prints all of it as JSON: ``deploy/nats/permissions.json``.
"""

import json
from dataclasses import dataclass
from typing import Any

from stellwerk.events import REGISTRY, Event
from stellwerk_embedded.credentials import CLIENT
from stellwerk_embedded.layout import EXECUTOR_ID, SERVICES
from stellwerk_kit.topology import CONSUMERS, ConsumerSpec, executor_consumer

LEASES = ("sw.rpc.scheduler.lease-renew", "sw.rpc.scheduler.attempt-confirm")
BUILDS = ("sw.rpc.environment-build.environment-get", "sw.rpc.environment-build.build-start")
ANSWERING = tuple(name for name in SERVICES if name not in {"gateway", "gpu-executor"})
ASKS = {
    "gateway": tuple(f"sw.rpc.{name}.*" for name in ANSWERING),
    "gpu-executor": (*LEASES, *BUILDS),
}
"""Verbs a service asks others for."""
NEVER_ASKS = {"gateway": LEASES}
"""Verbs that :data:`ASKS` covers and that are somebody else's."""
BULK = {
    "gpu-executor": ("sw.log.>", "sw.metric.>"),
    "gateway": ("sw.metric.>", "sw.log.*.1.*"),
    "environment-build": ("sw.log.*.*.build",),
}
"""Log bytes and metrics."""
READABLE = ("SW_EVENTS", "SW_LOGS")
"""Streams that clients may read."""
REFUSED = "sw.dead.scheduler-facts"
"""Where a client hears that what it published is no event, and why."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects one user may publish on and subscribe to; ``responses``: may answer requests."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    deny_publish: tuple[str, ...] = ()
    responses: bool = True

    def config(self) -> dict[str, Any]:
        """The broker's form."""
        publish: dict[str, list[str]] = {"allow": list(self.publish)}
        if self.deny_publish:
            publish["deny"] = list(self.deny_publish)
        found: dict[str, Any] = {
            "publish": publish,
            "subscribe": {"allow": list(self.subscribe)},
        }
        if self.responses:
            found["allow_responses"] = {"max": 1, "expires": "60s"}
        return found


def of_service(name: str, executor_id: str = EXECUTOR_ID, user: str | None = None) -> Permissions:
    """Least privilege of a service; ``user``: its name on the broker where that is another."""
    owned = [_subject(event, executor_id) for event in REGISTRY.values() if event.owner == name]
    publish = [*owned, *BULK.get(name, ()), *ASKS.get(name, ())]
    for spec in consumers_of(name, executor_id):
        where = f"{spec.stream}.{spec.name}"
        publish += [
            f"$JS.API.CONSUMER.MSG.NEXT.{where}",
            f"$JS.API.CONSUMER.INFO.{where}",
            f"$JS.ACK.{where}.>",
            f"sw.dead.{spec.name}",
        ]
        if spec not in CONSUMERS:  # it makes its own: there is one for each executor
            publish += [f"$JS.API.CONSUMER.{verb}.{where}" for verb in ("CREATE", "DURABLE.CREATE")]
    if name == "history":  # reads what is missing before its position straight from the streams
        for stream in dict.fromkeys(spec.stream for spec in consumers_of(name)):
            publish += [f"$JS.API.STREAM.INFO.{stream}", f"$JS.API.DIRECT.GET.{stream}"]
    if name == "gateway":
        publish += ["$JS.API.STREAM.MSG.GET.SW_EVENTS", "$JS.API.DIRECT.GET.SW_EVENTS.>"]
        publish += ["$JS.API.STREAM.MSG.GET.SW_METRICS"]  # where a run's records end
    return Permissions(
        tuple(publish), (f"_INBOX_{user or name}.>", f"sw.rpc.{name}.>"), NEVER_ASKS.get(name, ())
    )


def of_client(*executor_ids: str) -> Permissions:
    """What users on the bus may do; the platform's own consumers are out of their reach."""
    publish = ["sw.evt.submission.*.submitted", "sw.evt.submission.*.cancel-requested"]
    publish += ["$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.FC.>"]
    for stream in READABLE:
        publish += [
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.STREAM.MSG.GET.{stream}",
            f"$JS.API.DIRECT.GET.{stream}.>",
            f"$JS.API.CONSUMER.CREATE.{stream}",
            f"$JS.API.CONSUMER.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.INFO.{stream}.*",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
            f"$JS.API.CONSUMER.DELETE.{stream}.*",
            f"$JS.ACK.{stream}.>",
        ]
    deny = []
    for spec in (*CONSUMERS, *map(executor_consumer, executor_ids)):
        where = f"{spec.stream}.{spec.name}"
        deny += [
            f"$JS.API.CONSUMER.CREATE.{where}",
            f"$JS.API.CONSUMER.CREATE.{where}.>",
            f"$JS.API.CONSUMER.MSG.NEXT.{where}",
            f"$JS.API.CONSUMER.DELETE.{where}",
            f"$JS.ACK.{where}.>",
        ]
    subscribe = (f"_INBOX_{CLIENT}.>", "_INBOX.>", "sw.evt.>", "sw.log.>", REFUSED)
    return Permissions(tuple(publish), subscribe, tuple(deny), responses=False)


def consumers_of(name: str, executor_id: str = EXECUTOR_ID) -> list[ConsumerSpec]:
    """Durable consumers of a service."""
    if name == "gpu-executor":
        return [executor_consumer(executor_id)]
    return [spec for spec in CONSUMERS if spec.name.rpartition("-")[0] == name]


def everybody(executor_id: str = EXECUTOR_ID) -> dict[str, Permissions]:
    """All users but the administrator, who may do everything."""
    services = {name: of_service(name, executor_id) for name in SERVICES}
    return services | {CLIENT: of_client(executor_id)}


def _subject(event: type[Event], executor_id: str) -> str:
    """Where an event is published; what an executor reports bears its own name."""
    reported = event.owner == "gpu-executor"
    key = executor_id if reported and event.key == "executor_id" else "*"
    tokens = ["sw.evt", event.aggregate, key, event.verb]
    if event.addressee:
        tokens.append(executor_id if reported else "*")
    return ".".join(tokens)


if __name__ == "__main__":
    config = {name: allowed.config() for name, allowed in everybody().items()}
    print(json.dumps(config, indent=2))  # noqa: T201 - this is the command's output
