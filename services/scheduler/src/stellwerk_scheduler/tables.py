"""The scheduler's tables. Times ending in ``_at`` are service seconds unless they are DateTime."""

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from stellwerk_kit.dialects import COUNTED

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("number", COUNTED, primary_key=True, autoincrement=True),
    Column("run_id", String(40), nullable=False, unique=True),
    Column("pool", String(40), nullable=False),
    Column("demanding", Boolean, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("rank", Integer),
    Column("wake_at", Float),
    Column("submitted", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("not_responding", Boolean, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("decided", Integer, nullable=False),
    Column("needs", String(40), nullable=False),
    Column("image", Text),
    Column("inputs", Text),
    Column("node_id", String(40)),
    Column("executor_id", String(40)),
    Column("outcome", String(20)),
    Column("exit", Text),
    Column("failure", Text),
    Column("stopping", String(20)),
    Column("user_retries", Integer, nullable=False),
    Column("infra_retries", Integer, nullable=False),
    Column("not_before", Float),
    Column("deadline", Float),
    Column("resend_at", Float),
    Column("resends", Integer, nullable=False),
    sqlite_autoincrement=True,
)
"""``priority`` is minus what was asked for, ``rank`` the same while the run may be placed, else
NULL: (rank, number) is the order of a queue. ``demanding`` runs ask for cpus, memory or GPUs."""

Index(
    "ix_runs_queue",
    runs.c.pool,
    runs.c.demanding,
    runs.c.rank,
    runs.c.number,
    sqlite_where=runs.c.rank.is_not(None),
    postgresql_where=runs.c.rank.is_not(None),
)
Index(
    "ix_runs_wake",
    runs.c.wake_at,
    sqlite_where=runs.c.wake_at.is_not(None),
    postgresql_where=runs.c.wake_at.is_not(None),
)
Index("ix_runs_state", runs.c.pool, runs.c.state, runs.c.number)

ended = Table("ended", metadata, Column("run_id", String(40), primary_key=True))
"""Runs that ended so long ago that their rows are gone: none is begun a second time."""

early_cancels = Table(
    "early_cancels",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False, index=True),
)
"""Cancellations that came before their submission."""

driven = Table(
    "driven",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("parent_run_id", String(40), nullable=False, index=True),
)
"""Interactive runs that were begun below another run and have not ended."""

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("pool", String(40), nullable=False, index=True),
    Column("node_id", String(40), nullable=False, index=True),
    Column("executor_id", String(40), nullable=False, index=True),
    Column("cpus", Float, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
)
"""Live attempts only: the key admits one per run."""

pools = Table(
    "pools",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("builtin", Boolean, nullable=False),
    Column("deleting", Boolean, nullable=False),
    Column("vm_size", String(100), nullable=False),
    Column("vm_priority", String(20), nullable=False),
    Column("min_nodes", Integer, nullable=False),
    Column("max_nodes", Integer, nullable=False),
    Column("idle_seconds", Integer, nullable=False),
    Column("slots_per_node", Integer, nullable=False),
    Column("description", Text),
    Column("tags", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("modified_at", DateTime(timezone=True), nullable=False),
)

executors = Table(
    "executors",
    metadata,
    Column("executor_id", String(40), primary_key=True),
    Column("boot_id", String(40), nullable=False),
    Column("hostname", String(255), nullable=False),
    Column("resources", Text, nullable=False),
    Column("max_nodes", Integer, nullable=False),
    Column("pools", Text, nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("responding", Boolean, nullable=False),
)

targets = Table(
    "targets",
    metadata,
    Column("pool", String(40), primary_key=True),
    Column("executor_id", String(40), primary_key=True),
    Column("size", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("confirmed", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("ask_at", Float),
    Column("grow_after", Float, nullable=False),
    Column("reason", Text, nullable=False),
)
"""How many nodes are wanted of an executor. ``ask_at`` is set while its answer is missing;
``grow_after`` spares an executor that gave less than it was asked for."""

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", String(40), primary_key=True),
    Column("pool", String(40), nullable=False),
    Column("executor_id", String(40), nullable=False, index=True),
    Column("slots", Integer, nullable=False),
    Column("used", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("idle_since", Float, nullable=False),
    Index("ix_nodes_pool", "pool", "state", "used"),
)
"""``state``: ready, leaving (will be taken away, gets no work), lost (its executor is silent)."""

service_clock = Table(
    "service_clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("elapsed", Float, nullable=False),
)
