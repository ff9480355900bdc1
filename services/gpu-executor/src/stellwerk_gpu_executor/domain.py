"""Pure decisions of the executor: node sets, command lines, environments, exit summaries."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from stellwerk.events import ExitSummary, LogClosure, RunAssigned, StoredOutput
from stellwerk.events.attempt import ExitReason
from stellwerk.events.image import ENVIRONMENT_FOLDER
from stellwerk.runspec import Argument, InputArgument, OutputArgument
from stellwerk_gpu_executor import fonts
from stellwerk_gpu_executor.attempt_dir import ExitRecord
from stellwerk_shim import marks

LEASE_MARGIN_S = 15.0
TOKEN_MARGIN_S = 600.0
_REFERENCE = re.compile(r"\$(?:AZUREML_DATAREFERENCE_(\w+)|\{AZUREML_DATAREFERENCE_(\w+)\})")


def lease_margin(lease_s: float) -> float:
    """How long before its lease ends a run must be gone: 15 s, an eighth of a short lease."""
    return min(LEASE_MARGIN_S, lease_s / 8)


def node_id(pool: str, number: int, executor_id: str) -> str:
    """Name of a pool's n-th node here, at most 40 characters."""
    name = f"{pool}-{number}-{executor_id}"
    if len(name) <= 40:
        return name
    short = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{pool[:20].rstrip('-')}-{number}-{short}"


def resize(
    nodes: tuple[str, ...],
    size: int,
    *,
    drain: tuple[str, ...],
    busy: frozenset[str],
    pool: str,
    executor_id: str,
) -> tuple[str, ...]:
    """Node set after "size nodes are wanted": a busy node is never taken away."""
    kept = list(nodes)
    for node in [*drain, *reversed(nodes)]:
        if len(kept) <= size:
            break
        if node in kept and node not in busy:
            kept.remove(node)
    number = 0
    while len(kept) < size:
        name = node_id(pool, number, executor_id)
        if name not in kept:
            kept.append(name)
        number += 1
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class Places:
    """Where one attempt's things lie. ``seconds``: what laying out each kind of them took."""

    work: Path
    home: Path
    temporary: Path
    agent: Path
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    process_logs: Path
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Access:
    """A run's way to the platform. One that is not ``signed`` opens nothing."""

    token: str
    expires_at: int
    gateway_url: str
    signed: bool = True


def token_end(assigned: RunAssigned, now: float) -> int:
    """When an attempt's token expires: no attempt lives longer, whatever happens."""
    spec = assigned.spec
    return int(now + spec.max_duration_s + spec.grace_s + TOKEN_MARGIN_S)


def arguments(assigned: RunAssigned, places: Places) -> list[str]:
    """The run's arguments as text.

    An input becomes its path (or its id in direct mode), an output its folder. In a text
    ``$AZUREML_DATAREFERENCE_<name>`` stands for the same.
    """
    known = {**places.inputs, **places.outputs}

    def text(argument: Argument) -> str:
        match argument:
            case InputArgument():
                return places.inputs[argument.input]
            case OutputArgument():
                return places.outputs[argument.output]
            case _:
                return _REFERENCE.sub(lambda m: known.get(m[1] or m[2], m[0]), str(argument))

    return [text(argument) for argument in assigned.spec.arguments]


def command_line(assigned: RunAssigned, python: str, places: Places) -> list[str]:
    """What is executed: the script under the environment's Python, or the command as it is.

    A distributed run is a launcher's, which starts that several times.
    """
    rest = arguments(assigned, places)
    spec = assigned.spec
    line = [python, spec.script] if spec.script is not None else list(spec.command or ())
    several = spec.distributed
    if several is None:
        return [*line, *rest]
    return [
        *(python, "-m", "stellwerk_agent.distributed", "--backend", several.backend),
        *("--processes", str(several.process_count)),
        *("--parameter-servers", str(several.parameter_servers)),
        *("--logs", str(places.process_logs), "--", *line, *rest),
    ]


def impassable(line: Sequence[str], env: Mapping[str, str]) -> str:
    """Why a program cannot be given this command line or environment; empty where it can.

    The gateway refuses such runs (``text.nul``); what comes by the bus is looked at here only.
    """
    named = [(f"argument {index}", text) for index, text in enumerate(line)]
    named += [(f"environment variable {name!r}", name + text) for name, text in env.items()]
    for what, text in named:
        if "\0" in text:
            return (
                f"{what} holds the character U+0000, which no program can be passed; leave it out"
            )
    return ""


def environment(
    assigned: RunAssigned,
    python: str,
    places: Places,
    base: Mapping[str, str],
    access: Access,
) -> dict[str, str]:
    """The run's whole environment: nothing of the executor's own leaks into it.

    Later entries win: image, conda packages, data, platform, environment definition, the run's own
    variables. An input called ``path`` must not take the place of PATH.
    """
    set_there = assigned.image.image_variables
    if "PATH" in set_there:
        base = {**base, "PATH": set_there["PATH"]}
    platform = {
        **early_environment(python, places.agent, base),
        "HOME": str(places.home),
        "TMPDIR": str(places.temporary),
        "MPLCONFIGDIR": f"{places.home}/{fonts.FOLDER}",
        marks.WANTED: "1",
        "STELLWERK_EXPERIMENT": assigned.experiment,
        "STELLWERK_NODE": assigned.node_id,
        **_azureml(assigned, access),
        **_platform(access),
    }
    own = dict(assigned.spec.environment_variables)
    if "PYTHONPATH" in own:
        own["PYTHONPATH"] = f"{own['PYTHONPATH']}:{places.agent}"
    data = {**_inputs(assigned, places.inputs), **_outputs(places.outputs)}
    own = {**assigned.image.environment_variables, **own}
    return {**set_there, **_of_packages(assigned, python), **data, **platform, **own}


def _of_packages(assigned: RunAssigned, python: str) -> dict[str, str]:
    """What conda packages set, with the environment's folder as this run has it."""
    folder = str(Path(python).parent.parent)
    variables = assigned.image.package_variables.items()
    return {name: value.replace(ENVIRONMENT_FOLDER, folder) for name, value in variables}


def early_environment(python: str, agent: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The part that is the same for every run of an environment on this node."""
    bin_dir = str(Path(python).parent)
    system = base.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return {
        "PATH": f"{bin_dir}:{system}",
        "VIRTUAL_ENV": str(Path(bin_dir).parent),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(agent),
        "MPLBACKEND": "Agg",
        **{name: base[name] for name in ("LD_LIBRARY_PATH", "TZ", "USER") if name in base},
    }


def _platform(access: Access) -> dict[str, str]:
    """Where the SDK finds the platform; nothing for a run that may not use it."""
    if not access.signed:
        return {}
    return {"STELLWERK_URL": access.gateway_url, "STELLWERK_TOKEN": access.token}


def _azureml(assigned: RunAssigned, access: Access) -> dict[str, str]:
    """Names that scripts written for the Azure ML SDK v1 look for (azureml-core, core/run.py)."""
    return {
        "AZUREML_RUN_ID": assigned.run_id,
        "AZUREML_ARM_SUBSCRIPTION": "00000000-0000-0000-0000-000000000000",
        "AZUREML_ARM_RESOURCEGROUP": "stellwerk",
        "AZUREML_ARM_WORKSPACE_NAME": assigned.workspace,
        "AZUREML_ARM_PROJECT_NAME": assigned.experiment,
        "AZUREML_EXPERIMENT_ID": assigned.experiment,
        "AZUREML_WORKSPACE_ID": assigned.workspace,
        "AZUREML_RUN_TOKEN": access.token,
        "AZUREML_RUN_TOKEN_EXPIRY": str(access.expires_at),
        "AZUREML_SERVICE_ENDPOINT": access.gateway_url,
    }


def _inputs(assigned: RunAssigned, paths: Mapping[str, str]) -> dict[str, str]:
    variables: dict[str, str] = {}
    modes = []
    for name, path in paths.items():
        for variable in (
            name,
            name.upper(),
            f"AZURE_ML_INPUT_{name}",
            f"AZUREML_DATAREFERENCE_{name}",
        ):
            variables[variable] = path
        modes.append(f"{name}:{assigned.inputs[name].mode.capitalize()}")
    if modes:
        variables["AZUREML_DATASET_ENVIRONMENT_VARS"] = ",".join(modes)
    return variables


def _outputs(folders: Mapping[str, str]) -> dict[str, str]:
    forms = ("{}", "AZURE_ML_OUTPUT_{}", "AZUREML_DATAREFERENCE_{}")
    variables = {form.format(name): path for name, path in folders.items() for form in forms}
    if folders:
        variables["AZUREML_DATASET_FILE_OUTPUTS"] = ";".join(folders)
    return variables


def exit_summary(
    record: ExitRecord,
    *,
    manifest: str | None,
    outputs: dict[str, StoredOutput],
    skipped: tuple[str, ...],
    logs: tuple[LogClosure, ...],
    records: int,
) -> ExitSummary:
    """The supervisor's exit record with what was stored, as the event carries it."""
    known: tuple[str, ...] = get_args(ExitReason)
    return ExitSummary(
        reason=record.reason if record.reason in known else "shim-lost",
        exit_code=record.exit_code,
        signal=record.signal,
        oom=record.oom,
        message=record.message,
        duration_s=record.duration_s,
        cpu_s=record.cpu_s,
        peak_memory_bytes=record.peak_rss_bytes,
        outputs_manifest=manifest,
        outputs_skipped=skipped[:100],
        outputs=outputs,
        logs=logs,
        metric_records=records,
    )
