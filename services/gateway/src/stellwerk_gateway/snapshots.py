"""The paths of recently used snapshots, so that a sweep of runs reads its manifest once."""

from collections import OrderedDict

from stellwerk_kit.objects import ObjectStore

KEPT = 64


class SnapshotPaths:
    """Paths by digest, the last ``KEPT`` used."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._paths: OrderedDict[str, frozenset[str]] = OrderedDict()

    async def of(self, digest: str) -> frozenset[str]:
        """The paths in one snapshot. Raises NotFoundError, ProtocolError for what is none."""
        if digest not in self._paths:
            manifest = await self._objects.get_manifest(digest)
            self._paths[digest] = frozenset(entry.path for entry in manifest.entries)
            while len(self._paths) > KEPT:
                self._paths.popitem(last=False)
        self._paths.move_to_end(digest)
        return self._paths[digest]
