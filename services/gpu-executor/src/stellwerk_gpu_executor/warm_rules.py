"""Which runs may begin in a warm process, and in which one. Pure.

A warm process has read some variables already, when its interpreter started or a framework was
loaded: a run gets one whose values are its own. What else a loaded process cannot make good keeps
a run cold, and the reason is told.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stellwerk.events import RunAssigned
from stellwerk_gpu_executor import fonts
from stellwerk_gpu_executor.sandbox import MERGED, SYSTEM

READ_EARLY = re.compile(
    r"(?!TF_CONFIG$)(?:PYTHON|LD_|LC_|LANG|MALLOC_|GLIBC_|OMP_|OPENBLAS|GOTO_|BLIS_|MKL_|KMP_|NUMEXPR|VECLIB|TF_|XLA_"
    r"|KERAS_|TORCH|PYTORCH|JAX_|CUDA|NVIDIA|NCCL|HIP_|ROCR_|MPL|ABSL_|GRPC_|GLOG_|PROTOCOL_BUFFERS|TZ$"
    r"|SETUPTOOLS_|SSL_|OPENSSL_)"
)
"""Names of variables that an interpreter or a framework reads when it starts."""

PATHS = re.compile(r"[\s:=,;]+")
"""What stands between paths in a variable."""
ZONE = re.compile(r"\w+(/[\w+-]+){1,2}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a warm process is: an interpreter and the variables it was started with.

    ``user_managed``: its environment is the user's own and may change at any moment. ``plain``: no
    framework is loaded.
    """

    python: str
    variables: tuple[tuple[str, str], ...]
    user_managed: bool = False
    plain: bool = False


def recipe_of(python: str, env: Mapping[str, str], *, user_managed: bool = False) -> Recipe:
    """The warm process for a run with this interpreter and environment.

    Matplotlib's folder is no part of it where it is in the home, which a fork moves.
    """
    own = f"{env.get('HOME')}/{fonts.FOLDER}"
    chosen = {
        name: value
        for name, value in env.items()
        if (name in {"PATH", "VIRTUAL_ENV"} or READ_EARLY.match(name))
        and (name, value) != ("MPLCONFIGDIR", own)
    }
    return Recipe(python, tuple(sorted(chosen.items())), user_managed)


def none_yet(wanted: Recipe, others: Iterable[Recipe]) -> str:
    """That there is no warm process for a run; where there is one alike, what it lacks."""
    reason = "its environment has no warm process yet"
    alike = [each for each in others if (each.python, each.plain) == (wanted.python, wanted.plain)]
    differences = [set(each.variables) ^ set(wanted.variables) for each in alike]
    if not differences:
        return reason
    names = sorted({name for name, _ in min(differences, key=len)})
    return f"{reason} that began with the same {', '.join(names)}"


def unfit(assigned: RunAssigned, env: Mapping[str, str], agent: str) -> str | None:
    """Why a run can have no warm process at all, None if it may have one."""
    spec = assigned.spec
    if spec.warm == "never":
        return "the run asks for a cold start"
    if spec.script is None:
        return "the run is a command, not a Python script"
    if spec.distributed is not None:
        return "the processes of a distributed run are started by their launcher"
    if env.get("PYTHONPATH") != agent:
        return "the run sets PYTHONPATH"
    return None


def chosen_by(assigned: RunAssigned, set_by_script: Iterable[str]) -> set[str]:
    """Names of variables that a run's user has set, somewhere."""
    own = (assigned.spec.environment_variables, assigned.image.environment_variables)
    return {name for each in (*own, set_by_script) for name in each}


def names_unseen(
    recipe: Recipe, chosen: Iterable[str], env: Mapping[str, str], *, inside: bool
) -> str | None:
    """Why users' variables keep a run cold that is walled in.

    A warm process ``inside`` the walls shares with it the system and the environment, and nothing
    else that they may name: a library to load (LD_PRELOAD, OMP_TOOL_LIBRARIES), a place to write
    (XLA_FLAGS). One outside must follow no path of a user's at all.
    """
    system = [f"{place}/" for place in (*SYSTEM, *MERGED)]
    shared = (*system, f"{Path(recipe.python).parent.parent}/") if inside else ()
    for name in sorted(chosen):
        value = env.get(name, "")
        early = name in {"PATH", "VIRTUAL_ENV"} or READ_EARLY.match(name)
        if not early or (name == "TZ" and ZONE.fullmatch(value)):
            continue
        for path in (part for part in PATHS.split(value) if "/" in part):
            if ".." in path or not f"{path}/".startswith(shared):
                return f"{name} names {path}, which a warm process would not find as the run does"
    return None


def shadowed(modules: frozenset[str], beside_script: Iterable[str]) -> str | None:
    """Why a script's own modules keep it cold: one has the name of a module already loaded."""
    for name in sorted(beside_script):
        stem = name.partition(".")[0]
        if stem in modules:
            return f"{name} beside the script has the name of a module that is loaded already"
    return None
