"""Variables that a script sets itself before it imports a framework.

`os.environ["KERAS_BACKEND"] = "jax"` above `import keras` chooses what is loaded: a warm process
must have been started with it. What cannot be told from the sources keeps the run cold.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeGuard

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
MAX_CHARACTERS, MAX_FILES = 1_000_000, 200
_IMPORT = re.compile(r"(?m)^\s*(?:import|from)\s+(.*)$")
_WORD = re.compile(r"(?<![\w.])\w+")
_ANY_NAME = re.compile(r"\b(?:import_module|__import__|runpy|exec)\b")
MAYBE = "?"
"""Before a framework that a helper imports somewhere."""
COMPUTED = "a variable with a computed name"
_MAY_SET = re.compile(r"environ|putenv|unsetenv")
_FRAMEWORK = re.compile(rf"(?m)^\s*(?:import|from)\s+({'|'.join(FRAMEWORKS)})\b")


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
    """A script and its own modules by name; ``names``: of files that it may import."""

    script: str
    helpers: Mapping[str, str]
    names: frozenset[str]


def read_sources(work: Path, script: str) -> Sources:
    """What of a run's code matters here. A script that changes `sys.path` may import any file."""
    path = work / script
    main = _read(path)
    beside = {each.stem: each for each in path.parent.iterdir() if each.name != path.name}
    helpers: dict[str, str] = {}
    wanted = _mentioned(main, beside)
    while wanted:
        name = wanted.pop()
        helpers[name] = _package(beside[name])
        wanted |= _mentioned(helpers[name], beside) - helpers.keys()
    names = {each.name for each in beside.values()} | {path.name}
    if any("sys.path" in text for text in (main, *helpers.values())):
        names |= {each.name for each in work.rglob("*") if each.suffix in {"", ".py", ".so"}}
    return Sources(main, helpers, frozenset(names))


def _mentioned(source: str, known: Mapping[str, Path]) -> set[str]:
    """Which of the known modules a source imports; any where it imports by computed names."""
    if _ANY_NAME.search(source):
        return {name for name, path in known.items() if path.is_dir() or path.suffix == ".py"}
    return {word for line in _IMPORT.findall(source) for word in _WORD.findall(line)} & known.keys()


def _package(path: Path) -> str:
    """The source of a module, or of all modules of a package."""
    files = [path] if path.is_file() else islice(path.rglob("*.py"), MAX_FILES)
    return "\n".join(map(_read, files))


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

    ``helpers``: sources of its own modules by name; none of them may. Raises UnknowableError.
    """
    for name, source in helpers.items():
        for each in _writes(_parse(source), early):
            raise UnknowableError(f"{name} sets {each.variable}, which {_is_early(each)}")
    return tuple(_Follower(helpers, early).follow(_parse(script).body, set()))


@dataclass(frozen=True, slots=True)
class _Follower:
    """Reads statements in the order in which they are executed."""

    helpers: Mapping[str, str]
    early: re.Pattern[str]

    def follow(self, block: list[ast.stmt], seen: set[str]) -> list[Setting]:
        """What a block sets before it matters no more; ``seen``: frameworks loaded by then.

        What a function sets counts where it imports the framework itself, further down.
        """
        found: list[Setting] = []
        for statement in block:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                found += self.follow(statement.body, set(seen))
            elif _is_main(statement):
                found += self.follow(statement.body, seen)
            else:
                seen |= _imported(statement, self.helpers)
                found += self._set_by(statement, seen)
        return found

    def _set_by(self, statement: ast.stmt, seen: set[str]) -> list[Setting]:
        plain = isinstance(statement, ast.Assign | ast.Expr)
        found = []
        for each in _writes(statement, self.early):
            readers = _readers(each.variable)
            if readers <= seen:
                continue  # as in a new interpreter: it comes too late to change what is loaded
            if (
                not plain
                or each.value is None
                or seen & (readers | {MAYBE + name for name in readers})
            ):
                raise UnknowableError(
                    f"line {statement.lineno} of the script sets {each.variable}, which "
                    f"{_is_early(each)}; set it in plain lines above the first framework"
                )
            found.append(each)
        return found


def _is_main(statement: ast.stmt) -> TypeGuard[ast.If]:
    """Whether it is ``if __name__ == "__main__":``."""
    match statement:
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()])):
            return True
        case _:
            return False


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
    sources = helpers.values() if names & helpers.keys() else ()
    mentioned = {name for source in sources for name in _FRAMEWORK.findall(source)}
    return (names & FRAMEWORKS) | {MAYBE + name for name in mentioned}


def _is_early(setting: Setting) -> str:
    return "may be one that is read early" if setting.variable == COMPUTED else "is read early"


_Written: TypeAlias = tuple[ast.expr | None, ast.expr | None, bool]
"""Name, None for any; value, None where it cannot be told or is taken away; whether a default."""


def _writes(tree: ast.AST, early: re.Pattern[str]) -> Iterator[Setting]:
    """Early variables that a piece of source sets or takes away, and those with computed names."""
    for node in ast.walk(tree):
        for name_node, given, default in _written(node):
            name = _text(name_node)
            if name is None:
                yield Setting(COMPUTED, None)
            elif early.match(name):
                yield Setting(name, _text(given), default)


def _written(node: ast.AST) -> list[_Written]:
    match node:
        case ast.Assign(targets=targets, value=value):
            return [
                (inner.slice, value if inner is target else None, False)
                for target in targets
                for inner in ast.walk(target)
                if isinstance(inner, ast.Subscript) and _is_environ(inner.value)
            ]
        case ast.AugAssign(target=ast.Subscript(value=where, slice=key)):
            return [(key, None, False)] if _is_environ(where) else []
        case ast.AugAssign(target=where, value=value):
            return _updates([value], []) if _is_environ(where) else []
        case ast.Delete(targets=targets):
            return [
                (each.slice, None, False)
                for each in targets
                if isinstance(each, ast.Subscript) and _is_environ(each.value)
            ]
        case ast.Call(func=ast.Attribute(value=where, attr=name), args=args, keywords=more):
            return _called(name, args, more, environ=_is_environ(where))
        case _:
            return []


def _called(
    method: str, args: list[ast.expr], more: list[ast.keyword], *, environ: bool
) -> list[_Written]:
    match method, args:
        case ("setdefault", [key, value]) if environ:
            return [(key, value, True)]
        case ("update", _) if environ:
            return _updates(args, more)
        case ("pop", [key, *_]) if environ:
            return [(key, None, False)]
        case ("clear" | "popitem", _) if environ:
            return [(None, None, False)]
        case ("putenv", [key, value]):
            return [(key, value, False)]
        case ("unsetenv", [key]):
            return [(key, None, False)]
        case _:
            return []


def _updates(args: list[ast.expr], more: list[ast.keyword]) -> list[_Written]:
    found: list[_Written] = []
    for each in args:
        if isinstance(each, ast.Dict):
            found += [
                (key, value, False) for key, value in zip(each.keys, each.values, strict=True)
            ]
        else:
            found.append((None, None, False))
    return found + [
        (ast.Constant(each.arg) if each.arg else None, each.value, False) for each in more
    ]


def _is_environ(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "environ") or (
        isinstance(node, ast.Name) and node.id == "environ"
    )


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
