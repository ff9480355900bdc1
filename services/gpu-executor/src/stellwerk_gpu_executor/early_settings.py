"""Variables that a script sets itself before it imports a framework.

`os.environ["KERAS_BACKEND"] = "jax"` above `import keras` chooses what is loaded: a warm process
must have been started with it. What cannot be told from the sources keeps the run cold.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

READERS = {
    "KERAS_": {"keras"},
    "TF_": {"tensorflow", "keras", "tf_keras"},
    "JAX_": {"jax"},
    "TORCH": {"torch"},
    "PYTORCH": {"torch"},
    "MPL": {"matplotlib"},
}
"""Who reads a variable, by its first letters; any framework may read another one."""
FRAMEWORKS = frozenset({"numpy"}.union(*READERS.values()))
MAX_CHARACTERS = 1_000_000
SOME = "?"
"""Which ones a helper imports is not told apart."""
_MAY_SET = re.compile(r"environ|putenv")
_IMPORTS = re.compile(rf"(?m)^\s*(?:import|from)\s+(?:{'|'.join(FRAMEWORKS)})\b")


class UnknowableError(Exception):
    """A source sets an early variable in a way that cannot be followed; the text says how."""


@dataclass(frozen=True, slots=True)
class Setting:
    """``value`` None: not to be told from the source. ``default``: only where there is none."""

    variable: str
    value: str | None
    default: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """A script and the modules beside it by name; ``names``: of files that may be imported."""

    script: str
    helpers: Mapping[str, str]
    names: frozenset[str]


def read_sources(work: Path, script: str) -> Sources:
    """What of a run's code matters here. A script that changes `sys.path` may import any file."""
    path = work / script
    main = _read(path)
    beside = [each for each in path.parent.iterdir() if each.name != path.name]
    helpers = {each.stem: _read(each) for each in beside if each.suffix == ".py"}
    names = {each.name for each in beside} | {path.name}
    if any("sys.path" in text for text in (main, *helpers.values())):
        names |= {each.name for each in work.rglob("*") if each.suffix in {"", ".py", ".so"}}
    return Sources(main, helpers, frozenset(names))


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as source:
            return source.read(MAX_CHARACTERS)
    except OSError:
        return ""


def applied(env: Mapping[str, str], settings: tuple[Setting, ...]) -> dict[str, str]:
    """``env`` as it is when the script imports its first framework."""
    after = dict(env)
    for each in settings:
        if each.value is not None and not (each.default and each.variable in after):
            after[each.variable] = each.value
    return after


def settings_of(
    script: str, helpers: Mapping[str, str], early: re.Pattern[str]
) -> tuple[Setting, ...]:
    """What ``script`` sets, of the variables that ``early`` matches, while it matters.

    ``helpers``: sources beside it by module name; none of them may. Raises UnknowableError.
    """
    for name, source in helpers.items():
        for each in _writes(_parse(source), early):
            raise UnknowableError(f"{name}.py sets {each.variable}, which is read early")
    found: list[Setting] = []
    seen: set[str] = set()
    for statement in _parse(script).body:
        seen |= _imported(statement, helpers)
        plain = isinstance(statement, ast.Assign | ast.Expr)
        for each in _writes(statement, early):
            readers = _readers(each.variable)
            if readers <= seen:
                continue  # as in a new interpreter: it comes too late to change what is loaded
            if not plain or each.value is None or seen & (readers | {SOME}):
                raise UnknowableError(
                    f"line {statement.lineno} of the script sets {each.variable}, which is read "
                    "early; set it in plain lines above the first framework"
                )
            found.append(each)
    return tuple(found)


def _parse(source: str) -> ast.Module:
    if not _MAY_SET.search(source):
        return ast.Module([], [])
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])  # Python itself will explain


def _readers(variable: str) -> set[str]:
    return next(
        (names for start, names in READERS.items() if variable.startswith(start)), set(FRAMEWORKS)
    )


def _imported(statement: ast.stmt, helpers: Mapping[str, str]) -> set[str]:
    """Frameworks that are loaded after a statement, also by a helper that it imports."""
    names: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    through = any(_IMPORTS.search(helpers[name]) for name in names & helpers.keys())
    return {SOME} if through else names & FRAMEWORKS


def _writes(tree: ast.AST, early: re.Pattern[str]) -> Iterator[Setting]:
    found: list[tuple[ast.expr, ast.expr | None, bool]]
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Subscript(value=where, slice=key)], value=value):
                found = [(key, value, False)] if _is_environ(where) else []
            case ast.AugAssign(target=ast.Subscript(value=where, slice=key)):
                found = [(key, None, False)] if _is_environ(where) else []
            case ast.Call(func=ast.Attribute(value=where, attr="setdefault"), args=[key, value]):
                found = [(key, value, True)] if _is_environ(where) else []
            case ast.Call(func=ast.Attribute(value=where, attr="update"), args=args, keywords=more):
                found = _updates(args, more) if _is_environ(where) else []
            case ast.Call(func=ast.Attribute(attr="putenv"), args=[key, value]):
                found = [(key, value, False)]
            case _:
                found = []
        for name_node, given, default in found:
            name = _text(name_node)
            if name is not None and early.match(name):
                yield Setting(name, _text(given), default)


def _updates(
    args: list[ast.expr], more: list[ast.keyword]
) -> list[tuple[ast.expr, ast.expr | None, bool]]:
    pairs: list[tuple[ast.expr, ast.expr | None, bool]] = [
        (key, value, False)
        for each in args
        if isinstance(each, ast.Dict)
        for key, value in zip(each.keys, each.values, strict=True)
        if key is not None
    ]
    return pairs + [(ast.Constant(each.arg), each.value, False) for each in more if each.arg]


def _is_environ(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
