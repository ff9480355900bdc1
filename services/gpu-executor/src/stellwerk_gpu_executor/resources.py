"""What this machine has."""

import os
from typing import Any

import psutil
import structlog

from stellwerk.events import Gpu, NodeResources
from stellwerk_gpu_executor.gpu_shares import visible

MIB = 1024 * 1024

log = structlog.get_logger()


def machine() -> NodeResources:
    """CPU cores, memory and GPUs as the operating system and the driver report them."""
    return NodeResources(
        cpus=psutil.cpu_count() or 1,
        memory_mb=psutil.virtual_memory().total // MIB,
        gpus=tuple(gpu for gpu, _ in _gpus()),
    )


def gpu_ids() -> tuple[str, ...]:
    """The driver's own names of the GPUs (`GPU-…`), in the order of :func:`machine`.

    An index says which of those that this process sees; a container that has some counts from 0.
    """
    return tuple(name for _, name in _gpus())


def _gpus() -> list[tuple[Gpu, str]]:
    """GPUs by NVIDIA's management library, with their names; none where there is no driver.

    An operator who gives this service some of the machine's by ``CUDA_VISIBLE_DEVICES`` means
    these.
    """
    import pynvml  # noqa: PLC0415 - loads a driver library; only needed at the start

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        names = [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = visible(names, named)
        if named and names and not shown:
            log.warning("no GPU is called so", action="gpus_hidden", variable=named, gpus=names)
        return [(_gpu(pynvml, index, handles[index]), names[index]) for index in shown]
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, index: int, handle: Any) -> Gpu:
    model = _text(pynvml.nvmlDeviceGetName(handle))
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
    return Gpu(index=index, name=model, memory_mb=memory // MIB)


def _text(said: bytes | str) -> str:
    """Versions of the library differ in what they answer with."""
    return said.decode() if isinstance(said, bytes) else said
