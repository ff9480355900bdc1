"""What a model needs when it is served; kept with the model, nothing is served yet."""


class ResourceConfiguration:
    """CPUs, memory in GB, GPUs; None leaves one open."""

    def __init__(
        self,
        cpu: float | None = None,
        memory_in_gb: float | None = None,
        gpu: int | None = None,
    ) -> None:
        self.cpu, self.memory_in_gb, self.gpu = cpu, memory_in_gb, gpu

    def serialize(self) -> dict[str, float | None]:
        """The three as a dictionary."""
        return {"cpu": self.cpu, "memoryInGB": self.memory_in_gb, "gpu": self.gpu}
