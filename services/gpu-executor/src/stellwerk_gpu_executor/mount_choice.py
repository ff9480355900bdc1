"""How an input by ``as_mount()`` is brought: links into the node cache, or a lazy mount. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from stellwerk.manifest import Manifest

SMALL_FILE = 256 * 1024
"""Files this small are read faster when all are fetched at once."""


@dataclass(frozen=True, slots=True)
class Choice:
    """``lazy``: mount, else hard links; ``why`` is a sentence for the run's log."""

    lazy: bool
    why: str


def choose(
    manifest: Manifest,
    cached: Collection[str],
    *,
    forced: bool | None,
    unavailable: str,
    threshold: int,
) -> Choice:
    """``cached``: digests on the node; ``threshold``: bytes to fetch that call for a mount."""
    absent = [entry for entry in manifest.entries if entry.sha256 not in cached]
    size = sum(entry.size for entry in absent)
    here = f"of it {_mib(size)} not on this node yet" if absent else "all of it on this node"
    facts = f"{len(manifest.entries)} files, {_mib(manifest.size)}, {here}"

    def fetched(why: str) -> Choice:
        return Choice(lazy=False, why=f"fetched before the start{why} ({facts})")

    if forced is False:
        return fetched(", as asked for")
    if unavailable:
        return fetched(
            f"{', although a lazy mount was asked for' if forced else ''}: {unavailable}"
        )
    if forced:
        return Choice(lazy=True, why=f"mounted lazily, as asked for ({facts})")
    if not absent:
        return Choice(lazy=False, why=f"linked from the node's cache ({facts})")
    if size < threshold:
        return fetched(f": less than {_mib(threshold)} to fetch")
    if size < SMALL_FILE * len(absent):
        return fetched(": many small files are faster so")
    return Choice(lazy=True, why=f"mounted lazily: {_mib(threshold)} or more to fetch ({facts})")


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"
