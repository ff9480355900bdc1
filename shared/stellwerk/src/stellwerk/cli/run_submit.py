"""``stellwerk run submit``."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stellwerk.cli.options import (
    name_and_version,
    output_option,
    pairs,
    pyproject_options,
    seconds,
    size,
)

if TYPE_CHECKING:
    from stellwerk.dataset import DatasetConsumptionConfig
    from stellwerk.environment import Environment
    from stellwerk.output_dataset import OutputFileDatasetConfig
    from stellwerk.workspace import Workspace

_INPUT = re.compile(
    r"(?P<name>[A-Za-z_]\w*)=(?P<dataset>[^:]+)(:(?P<version>\d+))?(:(?P<mode>mount|lazy|eager|download))?"
)

_NO_PYTHON = {
    ".ipynb": "a notebook (jupyter nbconvert --to script makes a script of it)",
    ".sh": "a shell script (in its folder, `run submit --command sh SCRIPT` runs it)",
}
MIB = 1 << 20
_PLACE = re.compile(r"\{[A-Za-z_]\w*\}")


def container_options(command: Any) -> Any:
    """Options that say what an environment stands on."""
    for option in (
        click.option(
            "--build-context",
            metavar="FOLDER",
            help="A folder with a Dockerfile that the packages are laid on, or an archive of it "
            "(.tar, .tar.gz, .tgz, .zip).",
        ),
        click.option("--dockerfile", type=click.Path(), help="A Dockerfile that they are laid on."),
        click.option(
            "--image", help="An image that the packages are laid on; without any, used as it is."
        ),
    ):
        command = option(command)
    return command


def resource_options(command: Any) -> Any:
    """Options that say what the run needs of its node."""
    for option in (
        click.option(
            "--max-duration", metavar="TIME", help="Ended after: 90m, 12h, 2d. Default: 30d."
        ),
        click.option("--memory", metavar="SIZE", help="Memory it may use at most: 8GB, 500MB."),
        click.option(
            "--cpus",
            type=click.FloatRange(0, 1024, min_open=True),
            help="Cores it may use at most; as many have to be free on its node.",
        ),
        click.option(
            "--gpus",
            type=click.IntRange(0, 64),
            default=0,
            show_default=True,
            help="GPUs that it has to itself, and sees.",
        ),
    ):
        command = option(command)
    return command


class _Submit(click.Command):
    """Says where the script's own options go to who puts them before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            text = f"{error.message} Options of the script itself come after SCRIPT."
            possible = error.possibilities
            raise click.NoSuchOption(error.option_name, text, possible, ctx) from error


@click.command(cls=_Submit, context_settings={"allow_interspersed_args": False})
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@click.option(
    "--source",
    type=click.Path(file_okay=False),
    help="Folder to upload; SCRIPT lies in it. Default: the folder of SCRIPT; with --command the "
    "current one.",
)
@click.option(
    "--command",
    is_flag=True,
    help="SCRIPT is a program, such as python or sh, that is started in the uploaded folder.",
)
@click.option("--experiment", default="default", show_default=True)
@click.option("--compute", default="local", show_default=True, help="Cluster to run on.")
@click.option("--environment", metavar="NAME[:VERSION]", help="A registered environment.")
@click.option("--conda", type=click.Path(), help="A conda environment file.")
@click.option("--requirements", type=click.Path(), help="A requirements.txt.")
@pyproject_options
@click.option("--package", multiple=True, help="A package of the environment. Repeatable.")
@container_options
@click.option("--interpreter", metavar="PYTHON", help="A Python of the node; nothing is built.")
@resource_options
@click.option(
    "--distributed",
    metavar="BACKEND:PROCESSES",
    help="Several processes with ranks: pytorch, mpi or tensorflow, for example pytorch:4.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=DATASET[:VERSION][:mount|lazy|eager|download]",
    help="A dataset for the run; {NAME} among ARGS becomes its path. lazy and eager are mounts "
    "whose files are fetched when they are read, or before the start. Repeatable.",
)
@click.option(
    "--output-data",
    "outputs",
    multiple=True,
    metavar="NAME[=DATASET]",
    help="A folder the run fills, registered as DATASET when it completes; {NAME} among ARGS "
    "becomes its path. Repeatable.",
)
@click.option("--env", multiple=True, metavar="K=V", help="An environment variable. Repeatable.")
@click.option("--priority", type=click.IntRange(0, 100), default=50, show_default=True)
@click.option("--max-retries", type=click.IntRange(0, 10), default=0, show_default=True)
@click.option(
    "--warm",
    type=click.Choice(["auto", "never", "require"]),
    default="auto",
    show_default=True,
    help="Begin in a process that has the frameworks of the environment loaded.",
)
@click.option("--tag", multiple=True, metavar="K=V", help="A tag. Repeatable.")
@click.option("--name", help="A name for people.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the run.")
@click.option("--raw", is_flag=True, help="Leave control characters of the log as they are.")
@output_option
def submit(script: str, arguments: tuple[str, ...], **options: Any) -> int:
    """Run SCRIPT with ARGS on the platform, and show its log until it has ended.

    Options come before SCRIPT, everything after it belongs to the script. Ctrl-C leaves the run
    alone. The exit code is 0, 100 if the run failed, 103 if it was canceled.
    """
    from stellwerk.cli.run_follow import show_until_end, tell_detached
    from stellwerk.errors import UserError
    from stellwerk.script_run_config import ScriptRunConfig
    from stellwerk.workspace import Workspace

    started = _started(script, options)
    workspace = Workspace.from_config()
    inputs = {each.name: each for each in (_input(workspace, t) for t in options["inputs"])}
    outputs = {each.name: each for each in map(_output, options["outputs"])}
    data = {**inputs, **outputs}
    variables = pairs(options["env"], "--env")
    if missing := [key for key, value in variables.items() if value is None]:
        raise UserError(f"--env: {missing[0]} has no value; write {missing[0]}=...", field="--env")
    config = ScriptRunConfig(
        **started,
        arguments=[_argument(each, data) for each in arguments],
        compute_target=options["compute"],
        environment=_environment(workspace, options),
        inputs=list(inputs.values()),
        outputs=list(outputs.values()),
        environment_variables={key: value or "" for key, value in variables.items()},
        priority=options["priority"],
        max_retries=options["max_retries"],
        max_run_duration_seconds=_duration(options["max_duration"]),
        resources=_resources(options),
        display_name=options["name"],
        warm=options["warm"],
        distributed_job_config=_distributed(options["distributed"]),
    )
    run = workspace.experiment(options["experiment"]).submit(
        config, tags=pairs(options["tag"], "--tag"), show_progress=True
    )
    if options["detach"]:
        return tell_detached(run, options["output"])
    return show_until_end(run, options["output"], raw=options["raw"])


def _started(script: str, options: dict[str, Any]) -> dict[str, Any]:
    """What is uploaded, and the script in it or the program that is started there."""
    if options["command"]:
        return {"source_directory": options["source"] or ".", "command": [script]}
    source, name = _place(script, options["source"])
    return {"source_directory": str(source), "script": name}


def _place(script: str, source: str | None) -> tuple[Path, str]:
    """Source folder, and the script's name within it."""
    from stellwerk.errors import UserError

    path = Path(script)
    if path.is_dir() and (source is None or (Path(source) / path).is_dir()):
        raise UserError(
            f"SCRIPT: {script!r} is a folder; name the script, for example {path / 'train.py'}",
            field="SCRIPT",
        )
    if path.suffix in _NO_PYTHON:
        raise UserError(
            f"SCRIPT: {script!r} is {_NO_PYTHON[path.suffix]}, and a run starts Python",
            field="SCRIPT",
        )
    if source is None:
        return path.parent, path.name
    folder = Path(source)
    if not (folder / path).is_file() and path.resolve().is_relative_to(folder.resolve()):
        return folder, path.resolve().relative_to(folder.resolve()).as_posix()
    return folder, path.as_posix()


def _argument(text: str, data: dict[str, Any]) -> Any:
    """``{NAME}`` is the input or output of that name; all else is itself."""
    if _PLACE.fullmatch(text) is None:
        return text
    if (found := data.get(text[1:-1])) is not None:
        return found
    there = f"; there are {', '.join(data)}" if data else ""
    click.echo(
        f"Note: {text} stays as it is, no --input or --output-data is called so{there}", err=True
    )
    return text


def _input(workspace: "Workspace", text: str) -> "DatasetConsumptionConfig":
    from stellwerk.dataset import Dataset, TabularDataset

    match = _INPUT.fullmatch(text)
    if match is None:
        raise click.BadParameter(
            f"got {text!r}; write NAME=DATASET[:VERSION][:mount|lazy|eager|download], for example "
            "mnist=mnist-dataset:2:mount",
            param_hint="--input",
        )
    version = int(match["version"] or 0)
    dataset = Dataset.get_by_name(workspace, match["dataset"], version or "latest")
    named = dataset.as_named_input(match["name"])
    if match["mode"] is None and isinstance(dataset, TabularDataset):
        return named
    if match["mode"] == "download":
        return named.as_download()
    return named.as_mount(lazy={"lazy": True, "eager": False}.get(match["mode"]))


def _output(text: str) -> "OutputFileDatasetConfig":
    from stellwerk.output_dataset import OutputFileDatasetConfig

    name, equal, dataset = text.partition("=")
    output = OutputFileDatasetConfig(name)
    return output.register_on_complete(dataset) if equal else output


def _resources(options: dict[str, Any]) -> dict[str, Any]:
    """Memory in MiB, as the run's limit is counted."""
    memory = options["memory"]
    limit = None if memory is None else size(memory, "--memory") // MIB
    return {"cpus": options["cpus"], "memory_mb": limit, "gpus": options["gpus"]}


def _duration(text: str | None) -> float:
    from stellwerk.script_run_config import MAX_RUN_SECONDS

    return MAX_RUN_SECONDS if text is None else seconds(text, "--max-duration")


def _distributed(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    backend, _, count = text.partition(":")
    if backend not in {"pytorch", "mpi", "tensorflow"} or not count.isdecimal():
        raise click.BadParameter(
            f"got {text!r}; write BACKEND:PROCESSES with pytorch, mpi or tensorflow, for example "
            "pytorch:4",
            param_hint="--distributed",
        )
    return {"backend": backend, "process_count": int(count)}


def _environment(workspace: "Workspace", options: dict[str, Any]) -> "Environment | None":
    from stellwerk.environment import Environment

    forms = ("environment", "conda", "requirements", "pyproject", "package", "interpreter")
    given = [each for each in forms if options[each]]
    if len(given) > 1:
        raise click.UsageError(f"--{given[0]} and --{given[1]} exclude each other; give one.")
    stands_on = any(options[each] for each in ("image", "dockerfile", "build_context"))
    if options["environment"] and stands_on:
        raise click.UsageError("--environment is complete; leave out what it stands on.")
    if options["environment"]:
        name, version = name_and_version(options["environment"])
        return Environment.get(workspace, name, version)
    if options["interpreter"] and not stands_on:
        own = Environment("command-line")
        own.python.user_managed_dependencies = True
        own.python.interpreter_path = options["interpreter"]
        return own
    return local_environment(workspace, "command-line", options)


def local_environment(
    workspace: "Workspace", name: str, options: dict[str, Any]
) -> "Environment | None":
    """The environment that the options describe; None where they describe none."""
    from stellwerk.docker_build_context import DockerBuildContext
    from stellwerk.environment import Environment

    stands_on = [each for each in ("image", "dockerfile", "build_context") if options[each]]
    if len(stands_on) > 1:
        first, second = (each.replace("_", "-") for each in stands_on[:2])
        raise click.UsageError(f"--{first} and --{second} exclude each other; give one.")
    found = _packages(name, options)
    if not stands_on:
        return found
    if found is None:
        found = Environment(name)
        found.python.user_managed_dependencies = True
        found.python.interpreter_path = options.get("interpreter")
    found.image = options["image"]
    if options["dockerfile"]:
        found.dockerfile = Path(options["dockerfile"]).read_text(encoding="utf-8")
    if options["build_context"]:
        found.build_context = DockerBuildContext.from_local_directory(
            workspace, options["build_context"]
        )
    return found


def _packages(name: str, options: dict[str, Any]) -> "Environment | None":
    from stellwerk.conda_dependencies import CondaDependencies
    from stellwerk.environment import Environment

    if not options["pyproject"] and (options["lock"] or options["extra"] or options["group"]):
        raise click.UsageError("--lock, --extra and --group belong to --pyproject; give it too.")
    if options["pyproject"]:
        return Environment.from_pyproject(
            name,
            options["pyproject"],
            lock_file=options["lock"],
            extras=options["extra"],
            groups=options["group"],
        )
    if options["conda"]:
        return Environment.from_conda_specification(name, options["conda"])
    if options["requirements"]:
        return Environment.from_pip_requirements(name, options["requirements"])
    if options["package"]:
        environment = Environment(name)
        environment.python.conda_dependencies = CondaDependencies.create(
            pip_packages=options["package"]
        )
        return environment
    return None
