"""Metrics every service has, in the Prometheus format at ``/metrics``."""

from prometheus_client import Counter, Gauge, Histogram

PUBLISHED = Counter("stellwerk_bus_published", "Events acknowledged by the broker", ["type"])
HANDLED = Counter("stellwerk_bus_handled", "Messages handled", ["consumer", "type"])
RETRIED = Counter("stellwerk_bus_retried", "Messages given back", ["consumer"])
REJECTED = Counter("stellwerk_bus_rejected", "Messages sent to the dead letters", ["consumer"])
REDELIVERED = Counter("stellwerk_bus_redelivered", "Messages seen more than once", ["consumer"])
HANDLE_SECONDS = Histogram("stellwerk_bus_handle_seconds", "Time in a handler", ["consumer"])
OUTBOX_PENDING = Gauge("stellwerk_outbox_pending", "Events committed and not yet acknowledged")
RPC_SECONDS = Histogram("stellwerk_rpc_seconds", "Time to answer a request", ["verb"])
COMMIT_SECONDS = Histogram("stellwerk_db_commit_seconds", "Time of one commit")
COMMIT_SIZE = Histogram(
    "stellwerk_db_commit_writes",
    "Writes that shared a commit",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
