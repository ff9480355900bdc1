"""What a run is asked to do: the part of RunSubmitted that every service reads.

Frozen models, unknown fields refused: a misspelt field must not be ignored silently.
The same models are the body of ``POST /api/v1/runs``.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from stellwerk.environment_names import PLATFORM_VARIABLES
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.ids import NAME_PATTERN
from stellwerk.tabular_definition import TabularDefinition

MAX_INLINE_SOURCE_BYTES = 64 * 1024
MAX_ARGUMENTS = 1000
MAX_RUN_SECONDS = 30 * 24 * 3600

COMPUTE_NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$"
VARIABLE_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ComputeName = Annotated[str, StringConstraints(pattern=COMPUTE_NAME_PATTERN)]
VariableName = Annotated[str, StringConstraints(pattern=VARIABLE_NAME_PATTERN)]
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Tags = dict[Annotated[str, StringConstraints(min_length=1, max_length=255)], str | None]


class Spec(BaseModel):
    """Base of all request models: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputArgument(Spec):
    """An argument that becomes the path (mount, download) or id (direct) of an input."""

    input: VariableName


class OutputArgument(Spec):
    """An argument that becomes the folder of an output."""

    output: VariableName


Argument = str | int | float | bool | InputArgument | OutputArgument


class DatasetInput(Spec):
    """A dataset made available to the run under a name.

    ``dataset`` is a registered name or a dataset id; ``version`` None means the latest when the
    run is prepared. ``path`` is where it appears, relative to the run's working folder. ``lazy``
    says for a mount whether files are fetched when they are read; None: the node chooses.
    """

    dataset: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    version: Annotated[int, Field(ge=1)] | None = None
    mode: Literal["mount", "download", "direct"] = "mount"
    path: RelativePath | None = None
    lazy: bool | None = None

    @model_validator(mode="after")
    def _lazy_is_for_mounts(self) -> Self:
        if self.lazy is not None and self.mode != "mount":
            raise ValueError(
                f"lazy: only an input by mount can be lazy; this one is by {self.mode}"
            )
        return self


class OutputRegistration(Spec):
    """The name that an output's dataset gets, as its next version, when the run has completed."""

    name: Name
    description: Annotated[str, StringConstraints(max_length=10_000)] | None = None
    tags: Tags = {}


class DatasetOutput(Spec):
    """A folder the run fills, which becomes a dataset when the run has completed.

    Its files get paths in a datastore: below ``path``, where ``{run-id}`` and ``{output-name}``
    stand for themselves. Files that are there already are replaced if ``overwrite`` or in mode
    ``mount``; otherwise nothing of the output is kept and the run gets a warning. The folder is
    ``path_on_compute`` within the run's working folder, or one of the platform's choice.
    ``tabular`` makes the dataset a table.
    """

    datastore: Name = "workspaceblobstore"
    path: RelativePath = "dataset/{run-id}/{output-name}"
    mode: Literal["mount", "upload"] = "mount"
    overwrite: bool = False
    path_on_compute: RelativePath | None = None
    register_as: OutputRegistration | None = None
    tabular: TabularDefinition | None = None

    def place(self, run_id: str, name: str) -> str:
        """The folder of the datastore that the files of output ``name`` get."""
        path = self.path.replace("{run-id}", run_id).replace("{output-name}", name)
        return path.strip("/")


class InlineSource(Spec):
    """Source files inside the event itself: at most 64 KiB in all, for small scripts."""

    inline: dict[RelativePath, str] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        size = sum(len(text.encode()) for text in self.inline.values())
        if size > MAX_INLINE_SOURCE_BYTES:
            raise ValueError(
                f"inline source is {size} bytes; the limit is {MAX_INLINE_SOURCE_BYTES}. "
                "Upload a snapshot instead (the SDK and the command line do)."
            )
        return self


class SnapshotSource(Spec):
    """A source snapshot uploaded before: the digest of its manifest."""

    snapshot: Digest


class EnvironmentReference(Spec):
    """A registered environment; ``version`` None means the latest when the run is prepared."""

    name: Name
    version: Annotated[int, Field(ge=1)] | None = None


class EnvironmentPin(Spec):
    """A prepared environment as an earlier run recorded it: its id, its lock's digest, its image.

    It is used as it was, whatever the definition would give today. One that is nothing but an
    image may have no lock.
    """

    env_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    lock_digest: Digest | None = None
    image: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.lock_digest is None and self.image is None:
            raise ValueError("give lock_digest, image, or both")
        return self


class Resources(Spec):
    """What one attempt needs on its node. Memory in MiB; None means no limit of its own."""

    cpus: Annotated[float, Field(gt=0, le=1024)] | None = None
    memory_mb: Annotated[int, Field(ge=16, le=16 * 1024 * 1024)] | None = None
    gpus: Annotated[int, Field(ge=0, le=64)] = 0


class Distributed(Spec):
    """Several processes of the run on its node, each told its rank by its backend's variables.

    ``parameter_servers`` of the processes serve parameters (tensorflow only).
    """

    backend: Literal["pytorch", "mpi", "tensorflow"]
    process_count: Annotated[int, Field(ge=1, le=256)] = 1
    parameter_servers: Annotated[int, Field(ge=0, le=64)] = 0
    node_count: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _on_one_node(self) -> Self:
        if self.node_count != 1:
            raise ValueError(
                f"node_count: got {self.node_count}; a run has one node here. Put the processes on "
                "it: process_count"
            )
        if self.parameter_servers and self.backend != "tensorflow":
            raise ValueError(
                "parameter_servers: only the backend tensorflow has them; leave it out"
            )
        if self.parameter_servers >= self.process_count:
            raise ValueError(
                f"parameter_servers: got {self.parameter_servers} of {self.process_count} "
                "processes; at least one has to be a worker"
            )
        return self


class Container(Spec):
    """Container settings of older clients: kept and shown; what runs run in is the operator's."""

    use: bool = True
    shared_volumes: bool = True
    shm_size: Annotated[str, StringConstraints(max_length=100)] | None = "2g"
    arguments: Annotated[tuple[str, ...], Field(max_length=100)] = ()


class RunSpec(Spec):
    """One training run: script or command, arguments, inputs, environment, target, limits.

    ``environment_pin``: the very environment of an earlier run, where ``environment`` alone could
    mean other packages by now.

    ``warm``: whether it may (auto) or must (require) begin in a process of its environment that
    has the frameworks loaded already.

    An ``interactive`` run has no process of the platform: a client (a notebook) drives it, reports
    its records and files, and says when it ends. It may have a ``source``, for the record.
    """

    kind: Literal["script", "interactive"] = "script"
    source: InlineSource | SnapshotSource | None = None
    script: RelativePath | None = None
    command: tuple[str, ...] | None = None
    arguments: tuple[Argument, ...] = Field(default=(), max_length=MAX_ARGUMENTS)
    inputs: dict[VariableName, DatasetInput] = Field(default_factory=dict, max_length=100)
    outputs: dict[VariableName, DatasetOutput] = Field(default_factory=dict, max_length=100)
    environment: EnvironmentReference | EnvironmentDefinition = Field(
        default_factory=EnvironmentDefinition
    )
    environment_name: Name | None = Field(
        None, description="What to call an environment that is not registered."
    )
    environment_pin: EnvironmentPin | None = None
    environment_variables: dict[VariableName, str] = Field(default_factory=dict, max_length=500)
    distributed: Distributed | None = None
    container: Container | None = None
    target: ComputeName = "local"
    resources: Resources = Resources()
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    max_duration_s: Annotated[float, Field(gt=0, le=MAX_RUN_SECONDS)] = MAX_RUN_SECONDS
    max_retries: Annotated[int, Field(ge=0, le=10)] = 0
    grace_s: Annotated[float, Field(ge=0, le=600)] = 30.0
    warm: Literal["auto", "never", "require"] = "auto"
    tags: Tags = Field(default_factory=dict, max_length=200)
    properties: Tags = Field(default_factory=dict, max_length=200)
    display_name: Annotated[str, StringConstraints(max_length=255)] | None = None

    @property
    def interactive(self) -> bool:
        """Whether a client drives the run."""
        return self.kind == "interactive"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in sorted(self.environment_variables.keys() & PLATFORM_VARIABLES):
            raise PydanticCustomError(
                "env.variable_reserved",
                "environment_variables.{name}: the platform sets it for every run; take another "
                "name",
                {"name": name},
            )
        if self.interactive:
            return self._driven_by_a_client()
        if self.source is None:
            raise PydanticCustomError("source.missing", "give the source: inline or a snapshot")
        if (self.script is None) == (self.command is None):
            raise ValueError("give exactly one of script and command")
        if self.command is not None and not self.command:
            raise ValueError("command is empty; give the program and its arguments")
        for index, argument in enumerate(self.arguments):
            if isinstance(argument, InputArgument) and argument.input not in self.inputs:
                raise ValueError(
                    f"arguments[{index}] names input {argument.input!r}, which inputs does not have"
                )
            if isinstance(argument, OutputArgument) and argument.output not in self.outputs:
                raise ValueError(
                    f"arguments[{index}] names output {argument.output!r}, which outputs does not "
                    "have"
                )
        if both := sorted(self.inputs.keys() & self.outputs.keys()):
            raise ValueError(f"{both[0]!r} is both an input and an output; rename one")
        inline = self.source.inline if isinstance(self.source, InlineSource) else None
        if inline is not None and self.script is not None and self.script not in inline:
            raise PydanticCustomError(
                "source.entrypoint",
                "script {script} is not in source.inline, which has {files}",
                {"script": repr(self.script), "files": ", ".join(sorted(inline))},
            )
        return self

    def _driven_by_a_client(self) -> Self:
        for name in ("script", "command", "arguments", "inputs", "distributed"):
            if getattr(self, name):
                raise ValueError(
                    f"{name}: an interactive run has none, nothing is started for it; leave it out"
                )
        if self.target != "local":
            raise ValueError("target: an interactive run uses no cluster; leave it out")
        return self
