"""Who may say and hear what on the bus, derived from the event registry and the topology.

Each service publishes only the aggregates it owns, reads only its own consumers, answers only its
own verbs. Clients may submit, ask to cancel, and read events and logs.
"""

from dataclasses import dataclass, field

from stellwerk.events import REGISTRY
from stellwerk_kit.topology import CONSUMERS, ConsumerSpec, executor_consumer

ASKS = {
    "gateway": ("sw.rpc.*.*",),
    "gpu-executor": ("sw.rpc.scheduler.lease-renew", "sw.rpc.scheduler.attempt-confirm"),
}
STREAMS_OUT = {
    "gpu-executor": ("sw.log.>", "sw.metric.>"),
    "environment-build": ("sw.log.>",),
    "dataset": ("sw.log.>",),
}


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects one user may publish on and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    deny_publish: tuple[str, ...] = field(default=())
    responses: bool = True


def of_service(name: str, executor_id: str = "local") -> Permissions:
    """Least privilege of a service."""
    owned = dict.fromkeys(
        f"sw.evt.{event.aggregate}.>" for event in REGISTRY.values() if event.owner == name
    )
    publish = [*owned, *STREAMS_OUT.get(name, ()), *ASKS.get(name, ())]
    for spec in consumers_of(name, executor_id):
        where = f"{spec.stream}.{spec.name}"
        publish += [
            f"$JS.API.CONSUMER.MSG.NEXT.{where}",
            f"$JS.API.CONSUMER.INFO.{where}",
            f"$JS.ACK.{where}.>",
            f"sw.dead.{spec.name}",
        ]
        if spec not in CONSUMERS:
            publish += [f"$JS.API.CONSUMER.{verb}.{where}" for verb in ("CREATE", "DURABLE.CREATE")]
    if name == "history":  # reads what is missing before its position straight from the streams
        for stream in ("SW_EVENTS", "SW_LOGS", "SW_METRICS"):
            publish += [f"$JS.API.STREAM.INFO.{stream}", f"$JS.API.DIRECT.GET.{stream}"]
    if name == "gateway":
        publish += ["$JS.API.STREAM.MSG.GET.SW_EVENTS", "$JS.API.DIRECT.GET.SW_EVENTS.>"]
    return Permissions(tuple(publish), (f"_INBOX_{name}.>", f"sw.rpc.{name}.>"))


def of_client(executor_id: str = "local") -> Permissions:
    """What users on the bus may do; the platform's own consumers are out of their reach."""
    publish = ["sw.evt.submission.*.submitted", "sw.evt.submission.*.cancel-requested"]
    publish += ["$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.FC.>"]
    for stream in ("SW_EVENTS", "SW_LOGS"):
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
    for spec in (*CONSUMERS, executor_consumer(executor_id)):
        where = f"{spec.stream}.{spec.name}"
        deny += [
            f"$JS.API.CONSUMER.CREATE.{where}",
            f"$JS.API.CONSUMER.CREATE.{where}.>",
            f"$JS.API.CONSUMER.MSG.NEXT.{where}",
            f"$JS.API.CONSUMER.DELETE.{where}",
            f"$JS.ACK.{where}.>",
        ]
    return Permissions(
        tuple(publish), ("_INBOX_client.>", "sw.evt.>", "sw.log.>"), tuple(deny), responses=False
    )


def consumers_of(name: str, executor_id: str) -> list[ConsumerSpec]:
    """Durable consumers of a service."""
    if name == "gpu-executor":
        return [executor_consumer(executor_id)]
    return [spec for spec in CONSUMERS if spec.name.rpartition("-")[0] == name]
