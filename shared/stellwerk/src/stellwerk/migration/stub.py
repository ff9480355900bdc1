"""The table of v1's symbols, read from ``v1.stub``: where each is, what it accepts, its mark."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Literal

Status = Literal["supported", "substituted", "not supported"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What becomes of a symbol, and why."""

    status: Status = "supported"
    note: str = ""


SUPPORTED = Mark()


@dataclass(frozen=True, slots=True)
class Shape:
    """Type of a result: an object of the class ``of``, or a ``list`` or ``dict`` of them."""

    of: str
    container: Literal["", "list", "dict"] = ""


@dataclass(frozen=True, slots=True)
class Member:
    """An attribute, or with ``keywords`` something that is called; ``open``: takes any keyword."""

    name: str
    mark: Mark = SUPPORTED
    keywords: tuple[str, ...] | None = None
    open: bool = False
    result: Shape | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A class, function or value, and the modules that it can be imported from."""

    name: str
    kind: Literal["class", "function", "value"]
    modules: tuple[str, ...]
    mark: Mark = SUPPORTED
    call: Member | None = None
    bases: tuple[str, ...] = ()
    members: dict[str, Member] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """All entries; ``packages``: import path → mark of everything below it."""

    entries: dict[str, Entry]
    packages: dict[str, Mark]

    def exported(self, module: str, name: str) -> Entry | None:
        """The entry that ``from module import name`` gives."""
        entry = self.entries.get(name)
        return entry if entry is not None and module in entry.modules else None

    def is_module(self, path: str) -> bool:
        """Whether ``path`` is a module that has entries, or a package of one."""
        modules = {module for entry in self.entries.values() for module in entry.modules}
        return any(f"{module}.".startswith(f"{path}.") for module in modules)

    def package(self, path: str) -> Mark | None:
        """The mark of a package that is marked as a whole."""
        found = (mark for name, mark in self.packages.items() if f"{path}.".startswith(f"{name}."))
        return next(found, None)

    def member(self, name: str, attribute: str) -> tuple[str, Member | None]:
        """An attribute of a class or of one of its bases, with the name of the class that has it.

        None with the name that a class without it goes by: of a private one its base's.
        """
        entry = self.entries[name]
        if attribute in entry.members:
            return name, entry.members[attribute]
        found = [self.member(base, attribute) for base in entry.bases]
        has = next((each for each in found if each[1] is not None), None)
        return has or (found[0] if found and name.startswith("_") else (name, None))


@cache
def table() -> Table:
    """The table that comes with Stellwerk."""
    return parse(resources.files("stellwerk.migration").joinpath("v1.stub").read_text("utf-8"))


def parse(text: str) -> Table:
    """Read a table. Raises ValueError for a line that means nothing."""
    entries: dict[str, Entry] = {}
    packages: dict[str, Mark] = {}
    for node in ast.parse(text).body:
        match node:
            case ast.ClassDef():
                entries[node.name] = _class(node)
            case ast.FunctionDef():
                entries[node.name] = _function(node)
            case ast.AnnAssign(
                target=ast.Name(id=name), value=ast.Call(args=[ast.Constant(where)])
            ):
                entries[name] = Entry(name, "value", tuple(str(where).split()))
            case ast.Expr(value=ast.Call(args=[ast.Constant(path), ast.Call() as mark])):
                packages[str(path)] = _mark([mark])
            case _:
                raise ValueError(f"line {node.lineno} of the table means nothing")
    return Table(entries, packages)


def _class(node: ast.ClassDef) -> Entry:
    members = {member.name: member for member in _members(node)}
    return Entry(
        node.name,
        "class",
        tuple((ast.get_docstring(node) or "").split()),
        _mark(node.decorator_list),
        members.pop("__init__", None),
        tuple(base.id for base in node.bases if isinstance(base, ast.Name)),
        members,
    )


def _function(node: ast.FunctionDef) -> Entry:
    member = _method(node)
    where = tuple((ast.get_docstring(node) or "").split())
    return Entry(node.name, "function", where, member.mark, member)


def _members(node: ast.ClassDef) -> Iterator[Member]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef):
            yield _method(each)
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            mark = _mark([each.value] if each.value is not None else [])
            yield Member(each.target.id, mark, result=_shape(each.annotation))


def _method(node: ast.FunctionDef) -> Member:
    return Member(
        node.name,
        _mark(node.decorator_list),
        tuple(argument.arg for argument in node.args.args),
        node.args.kwarg is not None,
        _shape(node.returns),
    )


def _shape(annotation: ast.expr | None) -> Shape | None:
    match annotation:
        case ast.Name(id=name) if name.strip("_")[:1].isupper():
            return Shape(name)
        case ast.Subscript(value=ast.Name(id="list"), slice=ast.Name(id=name)):
            return Shape(name, "list")
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, ast.Name(id=name)])):
            return Shape(name, "dict")
    return None


def _mark(decorators: list[ast.expr]) -> Mark:
    for each in decorators:
        match each:
            case ast.Call(func=ast.Name(id="refused"), args=[ast.Constant(note)]):
                return Mark("not supported", str(note))
            case ast.Call(func=ast.Name(id="substituted"), args=[ast.Constant(note)]):
                return Mark("substituted", str(note))
    return SUPPORTED
