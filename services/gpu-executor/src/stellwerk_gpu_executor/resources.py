"""What this machine has."""

import psutil

from stellwerk.events import Gpu, NodeResources

MIB = 1024 * 1024


def machine() -> NodeResources:
    """CPU cores, memory and GPUs as the operating system and the driver report them."""
    return NodeResources(
        cpus=psutil.cpu_count() or 1,
        memory_mb=psutil.virtual_memory().total // MIB,
        gpus=_gpus(),
    )


def _gpus() -> tuple[Gpu, ...]:
    """GPUs by NVIDIA's management library; none where there is no driver."""
    import pynvml  # noqa: PLC0415 - loads a driver library; only needed once, at the start

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()


def gpu_ids() -> tuple[str, ...]:
    """The driver's own names of the GPUs (`GPU-…`), in the order of their indexes.

    An index says which of those that this process sees; a container that has some counts from 0.
    """
    import pynvml  # noqa: PLC0415 - as above

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        ids = [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    finally:
        pynvml.nvmlShutdown()
    return tuple(each.decode() if isinstance(each, bytes) else str(each) for each in ids)


def _gpu(pynvml: "object", index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)  # type: ignore[attr-defined]
    name = pynvml.nvmlDeviceGetName(handle)  # type: ignore[attr-defined]
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total  # type: ignore[attr-defined]
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else str(name),
        memory_mb=memory // MIB,
    )
