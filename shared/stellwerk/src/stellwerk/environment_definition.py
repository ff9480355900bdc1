"""An environment as its user wants it: the model of a definition. Pure."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from stellwerk.environment_container import BuildContext
from stellwerk.environment_requirement import MAX_REQUIREMENTS

Text = Annotated[
    str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Texts = Annotated[tuple[Text, ...], Field(max_length=MAX_REQUIREMENTS)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileHashes = Annotated[
    dict[Text, Annotated[tuple[Sha256, ...], Field(max_length=200)]],
    Field(max_length=MAX_REQUIREMENTS),
]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
VariableText = Annotated[str, StringConstraints(max_length=32_768, pattern=r"^[^\x00]*$")]


class EnvironmentDefinition(BaseModel):
    """What the user asked for, as written.

    ``python``: a version ("3.11", "3.6.2") or a range (">=3.10,<3.13"); None means the machine's.
    ``constraints``: versions of whatever of these packages is needed, as of a lock; they want
    nothing themselves.
    ``hashes``: of those versions, by ``name==version``: SHA-256 of the files that may be used.
    ``user_managed``: nothing is installed, the run uses ``interpreter`` of its node.
    ``strict``: what this machine cannot do exactly is refused instead of relaxed with a warning.
    ``image``, ``dockerfile`` (its text), ``build_context``: what the environment stands on, one of
    them, instead of the platform's base image. The packages are laid on it; ``user_managed``: it
    is used as it is, and ``interpreter`` is one of its own. Runs have to be containers for that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: Text | None = None
    channels: Texts = ()
    conda_packages: Texts = ()
    pip_packages: Texts = ()
    constraints: Texts = ()
    hashes: FileHashes = {}
    environment_variables: dict[VariableName, VariableText] = Field(
        default_factory=dict, max_length=500
    )
    user_managed: bool = False
    interpreter: Text | None = None
    strict: bool = False
    image: Text | None = None
    dockerfile: Annotated[str, StringConstraints(max_length=65_536)] | None = None
    build_context: BuildContext | None = None
