"""Which of this node's GPUs each attempt has: no two have the same one. Pure."""

from collections.abc import Mapping, Sequence


class NoGpuError(Exception):
    """An attempt asks for more GPUs than are free; the text is for users."""


class GpuShares:
    """GPUs by the driver's names (`GPU-…`), and who has them until they are given back."""

    def __init__(
        self, ids: Sequence[str] = (), held: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """``ids``: this node's, in the order they are given out; ``held``: by owner, already."""
        self._ids = tuple(ids)
        self._held = {owner: tuple(each) for owner, each in (held or {}).items()}

    def take(self, owner: str, count: int) -> tuple[str, ...]:
        """``count`` GPUs that nobody else has, instead of what ``owner`` had. Raises NoGpuError."""
        self._held.pop(owner, None)
        taken = {each for held in self._held.values() for each in held}
        free = [each for each in self._ids if each not in taken]
        if count > len(free):
            raise NoGpuError(
                f"resources.gpus: {count} wanted, and of this node's {len(self._ids)} GPUs "
                f"{len(taken)} are in use; ask for fewer, or wait"
            )
        return self.hold(owner, free[:count])

    def hold(self, owner: str, ids: Sequence[str]) -> tuple[str, ...]:
        """Those that ``owner`` was given by an earlier executor, or is given now."""
        if ids:
            self._held[owner] = tuple(ids)
        return tuple(ids)

    def give_back(self, owner: str) -> None:
        """Nothing of ``owner`` uses any; also for one that has none."""
        self._held.pop(owner, None)


def visible(ids: Sequence[str], named: str | None) -> list[int]:
    """Indexes of the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order; None: all of them.

    As CUDA reads it (CUDA C++ Programming Guide, "CUDA Environment Variables"): indexes or the
    beginnings of names, up to the first that is no GPU. Indexes count as ``nvidia-smi`` does.
    """
    if named is None:
        return list(range(len(ids)))
    found: list[int] = []
    for part in map(str.strip, named.split(",")):
        if part.isdecimal():
            matching = [int(part)] if int(part) < len(ids) else []
        else:
            matching = [at for at, name in enumerate(ids) if part and name.startswith(part)]
        if len(matching) != 1 or matching[0] in found:
            break
        found += matching
    return found
