"""Environments: what a script needs to run, under a name and a version."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from stellwerk.api import BuildView, EnvironmentRequest, EnvironmentView
from stellwerk.client import Client, segment
from stellwerk.conda_dependencies import CondaDependencies, definition_from, invalid, read_text
from stellwerk.docker_build_context import DockerBuildContext
from stellwerk.environment_spec import (
    EnvironmentDefinition,
    InvalidEnvironment,
    from_pyproject,
    from_requirements,
)
from stellwerk.errors import NotFoundError, StellwerkError, UserError
from stellwerk.refusals import checked_name, naming_the_field
from stellwerk.runspec import EnvironmentReference
from stellwerk.streams import follow
from stellwerk.text import LogText

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

_STANDING = frozenset({"ready", "failed"})


class PythonSection:
    """The Python part of an environment."""

    __slots__ = ("conda_dependencies", "interpreter_path", "user_managed_dependencies")

    def __init__(self) -> None:
        self.conda_dependencies: CondaDependencies = CondaDependencies()
        self.user_managed_dependencies: bool = False
        self.interpreter_path: str | None = None


class Environment:
    """A definition, changeable until it is registered; an attribute with a typo is refused.

    ``name``: 1 to 255 letters (a-Z), digits, spaces and ``. _ -``, a letter or digit first; for
    another one UserError is raised.

    ``constraints``: versions for whatever of these packages is needed, as a lock has them;
    ``hashes``: the files of them that may be used.
    ``image``, ``dockerfile`` (its text) or ``build_context`` is what the packages are laid on.
    """

    __slots__ = (
        "_registered",
        "build_context",
        "constraints",
        "created",
        "dockerfile",
        "environment_variables",
        "hashes",
        "image",
        "name",
        "python",
        "state",
        "strict",
        "version",
    )

    def __init__(self, name: str) -> None:
        self.name = checked_name(name)
        self.version: str | None = None
        self.python = PythonSection()
        self.environment_variables: dict[str, str] = {}
        self.constraints: tuple[str, ...] = ()
        self.hashes: dict[str, tuple[str, ...]] = {}
        self.strict = False
        self.image: str | None = None
        self.dockerfile: str | None = None
        self.build_context: DockerBuildContext | None = None
        self.created = True
        self.state = "not-built"
        self._registered: EnvironmentDefinition | None = None

    def __repr__(self) -> str:
        return f"Environment(Name: {self.name}, Version: {self.version})"

    @classmethod
    def from_conda_specification(cls, name: str, file_path: str) -> Self:
        """From a conda environment file. Raises UserError."""
        return cls._of(name, definition_from(read_text(file_path)))

    @classmethod
    def from_pip_requirements(cls, name: str, file_path: str) -> Self:
        """From a requirements.txt. Raises UserError."""
        try:
            return cls._of(name, from_requirements(read_text(file_path)))
        except InvalidEnvironment as error:
            raise invalid(error) from error

    @classmethod
    def from_pyproject(
        cls,
        name: str,
        file_path: str = "pyproject.toml",
        *,
        lock_file: str | None = None,
        extras: Sequence[str] = (),
        groups: Sequence[str] = (),
    ) -> Self:
        """From a project's dependencies, with these extras and dependency groups.

        ``lock_file``: its uv.lock; versions and files are those it names then. Raises UserError.
        """
        try:
            lock = None if lock_file is None else read_text(lock_file)
            definition = from_pyproject(
                read_text(file_path), lock=lock, extras=extras, groups=groups
            )
        except InvalidEnvironment as error:
            raise invalid(error) from error
        return cls._of(name, definition)

    @classmethod
    def from_docker_image(
        cls,
        name: str,
        image: str,
        *,
        conda_specification: str | None = None,
        pip_requirements: str | None = None,
    ) -> Self:
        """The packages of a file laid on ``image``; without a file the image as it is."""
        made = cls._around(name, conda_specification, pip_requirements)
        made.image = image
        return made

    @classmethod
    def from_dockerfile(
        cls,
        name: str,
        dockerfile: str,
        conda_specification: str | None = None,
        pip_requirements: str | None = None,
    ) -> Self:
        """The same on what a Dockerfile builds; ``dockerfile`` is a path or the text itself."""
        made = cls._around(name, conda_specification, pip_requirements)
        is_path = "\n" not in dockerfile and Path(dockerfile).is_file()
        made.image = None
        made.dockerfile = read_text(dockerfile) if is_path else dockerfile
        return made

    @classmethod
    def from_docker_build_context(
        cls,
        name: str,
        docker_build_context: DockerBuildContext,
        conda_specification: str | None = None,
        pip_requirements: str | None = None,
    ) -> Self:
        """The same on what the Dockerfile of an uploaded folder builds."""
        made = cls._around(name, conda_specification, pip_requirements)
        made.image, made.build_context = None, docker_build_context
        return made

    @classmethod
    def get(cls, workspace: "Workspace", name: str, version: str | int | None = None) -> Self:
        """A registered environment; None is the latest version. Raises NotFoundError."""
        params = {"version": None if version is None else str(version)}
        view = workspace.client.get(f"/environments/{segment(name)}", EnvironmentView, params)
        return cls.of_view(view)

    @classmethod
    def list(cls, workspace: "Workspace", *, curated: bool = False) -> dict[str, Self]:
        """The latest version of every registered environment by name; or of the curated ones."""
        latest: dict[str, EnvironmentView] = {}
        params = {"curated": "true" if curated else None}
        for view in workspace.client.pages("/environments", EnvironmentView, params):
            latest.setdefault(view.name, view)  # newest first
        return {name: cls.of_view(view) for name, view in latest.items()}

    @classmethod
    def of(cls, other: "Environment") -> Self:
        """The same environment, registered or not, as an object of this class."""
        environment = cls._of(other.name, other.definition())
        environment.version, environment.state = other.version, other.state
        environment._registered = environment.definition() if other.version else None  # noqa: SLF001 - same class
        return environment

    @classmethod
    def of_view(cls, view: EnvironmentView) -> Self:
        """The platform's answer as an object."""
        environment = cls._of(view.name, view.definition)
        environment._registered = environment.definition()  # noqa: SLF001 - same class
        environment.version = str(view.version)
        environment.created = view.created
        environment.state = view.state
        return environment

    def clone(self, new_name: str) -> Self:
        """The same definition under another name, not registered."""
        return self._of(new_name, self.definition())

    def definition(self) -> EnvironmentDefinition:
        """The definition as it is now. Raises UserError naming what cannot be used."""
        user_managed = self.python.user_managed_dependencies
        return self.python.conda_dependencies.definition(
            environment_variables=dict(self.environment_variables),
            constraints=self.constraints,
            hashes=dict(self.hashes),
            user_managed=user_managed,
            interpreter=self.python.interpreter_path if user_managed else None,
            strict=self.strict,
            image=self.image,
            dockerfile=self.dockerfile,
            build_context=self.build_context and self.build_context.as_defined(),
        )

    def register(self, workspace: "Workspace") -> Self:
        """Store the definition; the same one again gives the same version (``created`` False)."""
        return self.of_view(self.saved(workspace))

    def saved(self, workspace: "Workspace") -> EnvironmentView:
        """Store the definition; the platform's view of it, warnings included."""
        with naming_the_field():
            request = EnvironmentRequest(name=self.name, definition=self.definition())
        return workspace.client.call("POST", "/environments", EnvironmentView, body=request)

    def build(self, workspace: "Workspace", *, rebuild: bool = False) -> "ImageBuildDetails":
        """Prepare the environment now instead of with its first run; registers it first."""
        registered = self if self.reference() else self.register(workspace)
        view = workspace.client.call(
            "POST",
            f"/environments/{segment(registered.name)}/builds",
            BuildView,
            params={"version": registered.version, "rebuild": "true" if rebuild else None},
        )
        return ImageBuildDetails(workspace.client, view)

    def sbom(self, workspace: "Workspace") -> dict[str, Any]:
        """The bill of materials of its latest build (CycloneDX 1.6).

        Raises NotFoundError for one that is not registered or not built.
        """
        path = f"/environments/{segment(self.name)}/sbom"
        content = workspace.client.content(path, {"version": self.version})
        found: dict[str, Any] = json.loads(content)
        return found

    def reference(self) -> EnvironmentReference | None:
        """The registered version, unless the definition was changed since."""
        if self.version is None or self._registered != self.definition():
            return None
        return EnvironmentReference(name=self.name, version=int(self.version))

    @classmethod
    def _of(cls, name: str, definition: EnvironmentDefinition) -> Self:
        environment = cls(name)
        environment.python.conda_dependencies = CondaDependencies.of(definition)
        environment.python.user_managed_dependencies = definition.user_managed
        environment.python.interpreter_path = definition.interpreter
        environment.environment_variables = dict(definition.environment_variables)
        environment.constraints = definition.constraints
        environment.hashes = dict(definition.hashes)
        environment.strict = definition.strict
        environment.image = definition.image
        environment.dockerfile = definition.dockerfile
        environment.build_context = DockerBuildContext.of(definition.build_context)
        return environment

    @classmethod
    def _around(cls, name: str, conda: str | None, pip: str | None) -> Self:
        """The packages of one of two files; neither: nothing is installed."""
        if conda is not None and pip is not None:
            raise UserError(
                "conda_specification, pip_requirements: give one of them, not both",
                field="pip_requirements",
            )
        if conda is not None:
            return cls.from_conda_specification(name, conda)
        if pip is not None:
            return cls.from_pip_requirements(name, pip)
        made = cls(name)
        made.python.user_managed_dependencies = True
        return made


class ImageBuildDetails:
    """A build under way or done."""

    def __init__(self, client: Client, view: BuildView) -> None:
        self._client = client
        self.view = view

    def __repr__(self) -> str:
        return f"ImageBuildDetails(Environment: {self.view.env_id}, Status: {self.view.state})"

    @property
    def status(self) -> str:
        """``not-built``, ``building``, ``ready`` or ``failed``; asks the platform."""
        path = f"/builds/{segment(self.view.env_id)}"
        self.view = self._client.get(path, BuildView)
        return self.view.state

    def logs(self) -> Iterator[bytes]:
        """The build's log, live, until the build has ended."""
        return follow(
            self._client,
            f"/builds/{segment(self.view.env_id)}/log",
            lambda _offset: self.status in _STANDING,
        )

    def wait_for_completion(
        self, show_output: bool = True, raise_on_error: bool = True, *, out: TextIO | None = None
    ) -> "ImageBuildDetails":
        """Wait for the build; raises StellwerkError with the resolver's words where it failed."""
        out = out or sys.stdout
        text = LogText(neutralise=out.isatty())
        if self.view.state not in _STANDING:
            with suppress(NotFoundError):  # a build that is over without having said anything
                for chunk in self.logs():
                    if show_output:
                        out.write(text.feed(chunk))
                        out.flush()
        if self.status == "failed" and raise_on_error:
            raise StellwerkError(
                f"The environment could not be built: {self.view.message}",
                code=f"env.{self.view.reason}",
            )
        return self
