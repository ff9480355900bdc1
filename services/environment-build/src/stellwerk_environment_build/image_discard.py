"""Taking an environment's image away again: from the engine, and from the registry if asked."""

from contextlib import closing, suppress

import structlog
from docker.errors import APIError, DockerException

from stellwerk_environment_build.cache import Ready
from stellwerk_environment_build.image_engine import TROUBLE, ImageSettings, clear, connect
from stellwerk_environment_build.image_registry import Registry

log = structlog.get_logger()


def discard(
    ready: Ready, settings: ImageSettings, *, from_registry: bool, shared: bool = False
) -> None:
    """Remove what is ours of an image; one that a container uses, or another name, stays.

    ``shared``: another environment is the same image, so that only this one's name goes.
    """
    reference = str(ready.image)
    ours = reference.startswith(f"{settings.repository}@") and not shared
    mark = settings.mark(ready.env_id)
    with suppress(*TROUBLE), connect() as client:
        names = [f"{settings.repository}:{mark}", *([reference] if ours else [])]
        for name in names:
            with suppress(APIError):
                client.images.remove(name)
        clear(client, mark)
    if from_registry and ours:
        _from_registry(reference, settings)


def _from_registry(reference: str, settings: ImageSettings) -> None:
    """Registries give the space free when they collect garbage; some allow no deletion at all."""
    try:
        with closing(Registry(settings)) as registry:
            registry.delete_manifest(reference.partition("@")[2])
    except DockerException as error:
        log.warning("registry keeps it", action="registry_delete", error=str(error))
