"""Transactions on pools and their nodes: targets are set, asked for again, answered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from sqlalchemy import Connection

from stellwerk.events import NodeJoined, NodeLost, NodeScaled, PoolTargetSet
from stellwerk_kit.db import Tx
from stellwerk_scheduler import pool_rows, pools, run_rows
from stellwerk_scheduler.pool_rows import Node, Target

TRIES_BEFORE_SILENT = 3
LONGEST_PAUSE_S = 300.0
GROW_AGAIN_S = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Scaler:
    """``answer_s``: how long an executor may take to answer a target."""

    answer_s: float

    def grow(self, tx: Tx, pool: Any, now: float) -> int:
        """Ask for the nodes that the queue needs; how many more slots were asked for."""
        bounds = _bounds(pool)
        most = bounds.max_nodes * bounds.slots_per_node
        demand = run_rows.demand(tx.conn, pool.name, most)
        if not demand and not bounds.min_nodes:
            return 0
        nodes = pool_rows.figures(tx.conn, pool.name)
        needed = pools.wanted(bounds, nodes, demand)
        have = self._usable_targets(tx.conn, pool.name)
        total = sum(t.size for t in have.values())
        if needed <= total or not have:
            return 0
        providers = [
            pools.Provider(
                e.executor_id, have[e.executor_id].size, pool_rows.room(tx.conn, e, pool.name, now)
            )
            for e in pool_rows.executors_of(tx.conn, pool.name)
            if e.executor_id in have
        ]
        sizes = pools.grow(needed, providers)
        reason = f"{demand} waiting, {nodes.busy} busy, at least {bounds.min_nodes}"
        for name, size in sizes.items():
            self._ask(tx, replace(have[name], size=size, slots=pool.slots_per_node), reason, now)
        added = sum(sizes.values()) - sum(have[name].size for name in sizes)
        return added * bounds.slots_per_node

    def growing(self, conn: Connection, pool_name: str) -> bool:
        """Whether usable executors owe an answer."""
        return any(t.ask_at is not None for t in self._usable_targets(conn, pool_name).values())

    def shrink(self, tx: Tx, pool: Any, now: float) -> None:
        """Take away nodes that were idle for the pool's time, or that are too many."""
        bounds = _bounds(pool)
        rows = [n for n in pool_rows.nodes_of(tx.conn, pool_name=pool.name) if n.state == "ready"]
        idle = [
            pools.IdleNode(n.node_id, n.executor_id, n.idle_since + pool.idle_seconds <= now)
            for n in sorted(rows, key=lambda n: n.idle_since)
            if n.used == 0
        ]
        if not idle:
            return
        most = bounds.max_nodes * bounds.slots_per_node
        demand = run_rows.demand(tx.conn, pool.name, most)
        needed = pools.wanted(bounds, pool_rows.figures(tx.conn, pool.name), demand)
        leave = pools.shrink(bounds, len(rows), needed, idle)
        for executor_id in sorted({node.executor_id for node in leave}):
            names = [node.node_id for node in leave if node.executor_id == executor_id]
            pool_rows.set_node_state(tx.conn, names, "leaving")
            target = pool_rows.target(tx.conn, pool.name, executor_id)
            smaller = replace(target, size=max(0, target.size - len(names)))
            self._ask(tx, smaller, f"idle: {', '.join(names)}"[:500], now, drain=names)

    def ask_again(self, tx: Tx, now: float) -> set[str]:
        """Ask anew where the answer is missing; a silent executor gets nothing new meanwhile."""
        touched = set()
        for target in pool_rows.unanswered(tx.conn, now):
            tries = target.tries + 1
            if tries == TRIES_BEFORE_SILENT:
                touched |= self.silent(tx, target.executor_id, "does not answer", now)
            leaving = _leaving(
                pool_rows.nodes_of(tx.conn, pool_name=target.pool, executor_id=target.executor_id)
            )
            self._ask(tx, target, target.reason, now, tries=tries, drain=leaving)
            touched.add(target.pool)
        return touched

    def joined(self, tx: Tx, fact: NodeJoined, now: float) -> set[str]:
        """An executor is there, with the nodes it provides already."""
        pool_rows.remember_executor(tx.conn, fact)
        have = pool_rows.nodes_of(tx.conn, executor_id=fact.executor_id)
        known = {t.pool: t for t in pool_rows.targets_of(tx.conn, executor_id=fact.executor_id)}
        for name in sorted({*fact.nodes, *known, *(n.pool for n in have)}):
            names = fact.nodes.get(name, ())
            target = known.get(name) or Target(name, fact.executor_id)
            row = pool_rows.pool(tx.conn, name)
            slots = row.slots_per_node if row is not None else max(1, target.slots)
            fresh = Node("", name, fact.executor_id, slots, 0, "ready", now)
            own = [n for n in have if n.pool == name]
            owed = target.ask_at is not None
            pool_rows.replace_nodes(tx, own, names, fresh, keep_leaving=owed)
            target = replace(target, slots=slots, tries=0)
            if row is None and names:
                self._ask(tx, replace(target, size=0), "the pool does not exist", now)
            elif owed:
                self._ask(tx, target, target.reason, now, drain=_leaving(own))
            else:
                pool_rows.save_target(tx.conn, replace(target, size=len(names)))
        return self._all_pools(tx.conn, fact.executor_id)

    def answered(self, tx: Tx, fact: NodeScaled, now: float) -> set[str]:
        """An executor says which nodes it provides for a pool; an older answer is ignored."""
        target = pool_rows.target(tx.conn, fact.pool, fact.executor_id)
        if fact.generation < target.confirmed:
            return set()
        latest = fact.generation >= target.generation
        have = pool_rows.nodes_of(tx.conn, pool_name=fact.pool, executor_id=fact.executor_id)
        fresh = Node("", fact.pool, fact.executor_id, max(1, target.slots), 0, "ready", now)
        pool_rows.replace_nodes(tx, have, fact.nodes, fresh, keep_leaving=not latest)
        pool_rows.mark_executor(tx.conn, fact.executor_id, responding=True)
        changes = replace(target, confirmed=fact.generation)
        if latest:
            short = len(fact.nodes) < target.size
            changes = replace(
                changes,
                size=len(fact.nodes),
                generation=fact.generation,
                ask_at=None,
                tries=0,
                grow_after=now + GROW_AGAIN_S if short else target.grow_after,
            )
        pool_rows.save_target(tx.conn, changes)
        if latest and fact.nodes and pool_rows.pool(tx.conn, fact.pool) is None:
            self._ask(tx, replace(changes, size=0), "the pool does not exist", now)
        return {fact.pool}

    def lost_attempt(self, tx: Tx, node_id: str, executor_id: str, now: float) -> set[str]:
        """A lease expired: a node without any other is lost, so is an executor without any."""
        if not pool_rows.attempts_at(tx.conn, executor_id):
            return self.silent(tx, executor_id, "all leases expired", now)
        if pool_rows.attempts_on(tx.conn, node_id):
            return set()
        rows = [
            n for n in pool_rows.nodes_of(tx.conn, executor_id=executor_id) if n.node_id == node_id
        ]
        self._lose(tx, executor_id, rows, "all leases expired", now)
        return {node.pool for node in rows}

    def silent(self, tx: Tx, executor_id: str, why: str, now: float) -> set[str]:
        """Give an executor nothing more until it says something; its nodes count as lost."""
        found = pool_rows.executor(tx.conn, executor_id)
        if found is None or not found.responding:
            return set()
        log.warning("executor is silent", action="executor_silent", executor_id=executor_id)
        pool_rows.mark_executor(tx.conn, executor_id, responding=False)
        rows = pool_rows.nodes_of(tx.conn, executor_id=executor_id)
        self._lose(tx, executor_id, rows, why, now)
        return {node.pool for node in rows}

    def release(self, tx: Tx, pool_name: str, now: float) -> None:
        """A pool is deleted: none of its nodes is wanted any more."""
        for target in pool_rows.targets_of(tx.conn, pool_name=pool_name):
            self._ask(tx, replace(target, size=0), "the pool is deleted", now)

    def _lose(self, tx: Tx, executor_id: str, rows: Sequence[Node], why: str, now: float) -> None:
        """Nodes get no more work until their executor lists them again; it is asked to."""
        found = pool_rows.executor(tx.conn, executor_id)
        for node in rows:
            tx.emit(
                NodeLost(
                    pool=node.pool,
                    node_id=node.node_id,
                    executor_id=executor_id,
                    reason=why,
                    boot_id="" if found is None else found.boot_id,
                )
            )
        pool_rows.set_node_state(tx.conn, [node.node_id for node in rows], "lost")
        for target in pool_rows.targets_of(tx.conn, executor_id=executor_id):
            if target.ask_at is None:
                asked = replace(target, ask_at=now + self.answer_s, tries=0)
                pool_rows.save_target(tx.conn, asked)

    def _ask(
        self,
        tx: Tx,
        target: Target,
        reason: str,
        now: float,
        *,
        tries: int = 0,
        drain: Iterable[str] = (),
    ) -> None:
        """Set a target under a new generation.

        Generations also grow over the loss of this store, because an executor ignores what is
        not newer than what it has seen: they start from the wall clock.
        """
        generation = max(target.generation + 1, int(tx.now.timestamp()))
        pause = min(LONGEST_PAUSE_S, self.answer_s * 2.0**tries)
        row = replace(target, generation=generation, ask_at=now + pause, tries=tries, reason=reason)
        pool_rows.save_target(tx.conn, row)
        tx.emit(
            PoolTargetSet(
                pool=row.pool,
                executor_id=row.executor_id,
                size=row.size,
                generation=generation,
                reason=reason,
                slots_per_node=row.slots,
                drain=tuple(drain),
            )
        )

    def _usable_targets(self, conn: Connection, pool_name: str) -> dict[str, Target]:
        known = {t.executor_id: t for t in pool_rows.targets_of(conn, pool_name=pool_name)}
        return {
            e.executor_id: known.get(e.executor_id) or Target(pool_name, e.executor_id)
            for e in pool_rows.executors_of(conn, pool_name)
            if e.usable
        }

    def _all_pools(self, conn: Connection, executor_id: str) -> set[str]:
        names: Sequence[str] = pool_rows.pool_names(conn)
        found = pool_rows.executor(conn, executor_id)
        return {name for name in names if found is not None and found.serves(name)}


def _leaving(rows: Sequence[Node]) -> list[str]:
    return [node.node_id for node in rows if node.state == "leaving"]


def _bounds(pool: Any) -> pools.Bounds:
    if pool.deleting:
        return pools.Bounds(0, 0, pool.slots_per_node)
    return pools.Bounds(pool.min_nodes, pool.max_nodes, pool.slots_per_node)
