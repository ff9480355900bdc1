"""What this machine has."""

import os
from typing import Any

import psutil

from stellwerk.events import Gpu, NodeResources
from stellwerk_gpu_executor.gpu_shares import visible

MIB = 1024 * 1024


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
        found = [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    shown = visible([name for _, name in found], os.environ.get("CUDA_VISIBLE_DEVICES"))
    return [found[index] for index in shown]


def _gpu(pynvml: Any, index: int) -> tuple[Gpu, str]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    model = _text(pynvml.nvmlDeviceGetName(handle))
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
    gpu = Gpu(index=index, name=model, memory_mb=memory // MIB)
    return gpu, _text(pynvml.nvmlDeviceGetUUID(handle))


def _text(said: bytes | str) -> str:
    """Versions of the library differ in what they answer with."""
    return said.decode() if isinstance(said, bytes) else said
