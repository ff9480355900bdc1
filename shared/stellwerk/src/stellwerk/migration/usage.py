"""Which symbols of the v1 SDK code uses: a walk over its syntax that follows types a little.

``ws = Workspace.from_config()`` makes ``ws`` a Workspace, so that ``ws.models`` is found as
``Workspace.models``. What cannot be followed is not reported.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from stellwerk.migration.sources import Source, place
from stellwerk.migration.stub import Entry, Mark, Member, Shape, Table

ROOT = "azureml"


class Use(NamedTuple):
    """One use of a symbol."""

    symbol: str
    mark: Mark
    where: str


class _Module(NamedTuple):
    path: str


class _Class(NamedTuple):
    entry: Entry


class _Object(NamedTuple):
    shape: Shape


class _Bound(NamedTuple):
    owner: str
    member: Member


_Value = _Module | _Class | _Object | _Bound | None


@dataclass
class Usage:
    """What was found; ``packages``: requirements that are written out, each with its place."""

    uses: list[Use] = field(default_factory=list)
    packages: list[tuple[str, str]] = field(default_factory=list)
    curated: list[tuple[str, str]] = field(default_factory=list)


def of(source: Source, table: Table) -> Usage:
    """All uses in a file, in order."""
    walker = _Walker(table)
    for label, tree in source.trees:
        walker.label = label
        walker.walk(tree)
    return walker.found


class _Walker:
    def __init__(self, table: Table) -> None:
        self.found = Usage()
        self.label = ""
        self._table = table
        self._names: list[dict[str, _Value]] = [{}]
        self._handlers: dict[type[ast.AST], Callable[..., _Value]] = {
            ast.Import: self._import,
            ast.ImportFrom: self._import_from,
            ast.Assign: self._assign,
            ast.AnnAssign: self._assign_one,
            ast.NamedExpr: self._assign_one,
            ast.For: self._loop,
            ast.AsyncFor: self._loop,
            ast.comprehension: self._loop,
            ast.withitem: self._with,
            ast.FunctionDef: self._function,
            ast.AsyncFunctionDef: self._function,
            ast.Lambda: self._function,
            ast.ListComp: self._comprehension,
            ast.SetComp: self._comprehension,
            ast.GeneratorExp: self._comprehension,
            ast.DictComp: self._comprehension,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.Subscript: self._subscript,
        }

    def walk(self, node: ast.AST) -> _Value:
        """Look at a node and everything below it; returns what an expression is."""
        handler = self._handlers.get(type(node))
        if handler is not None:
            return handler(node)
        for child in ast.iter_child_nodes(node):
            self.walk(child)
        return None

    # --- names --------------------------------------------------------------------------------

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            path = alias.name
            if path.partition(".")[0] == ROOT:
                self._imported_module(path, node)
                self._bind(alias.asname or ROOT, _Module(path if alias.asname else ROOT))
            else:
                self._bind(alias.asname or path.partition(".")[0], None)

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        for alias in node.names:
            value: _Value = None
            if module.partition(".")[0] == ROOT and not node.level:
                value = self._exported(module, alias.name, node)
            self._bind(alias.asname or alias.name, value)

    def _imported_module(self, path: str, node: ast.AST) -> None:
        if mark := self._table.package(path):
            self._use(path, mark, node)
        elif not self._table.is_module(path):
            self._use(path, _unknown(path), node)

    def _exported(self, module: str, name: str, node: ast.AST) -> _Value:
        path = f"{module}.{name}"
        if name == "*":
            self._imported_module(module, node)
            for each in self._table.entries.values():
                if module in each.modules:
                    self._bind(each.name, _Class(each))
            return None
        if entry := self._table.exported(module, name):
            self._use(entry.name, entry.mark, node)
            return _Class(entry)
        if mark := self._table.package(path):
            self._use(path, mark, node)
            return None
        if self._table.is_module(path):
            return _Module(path)
        self._use(path, _unknown(path), node)
        return None

    def _bind(self, name: str, value: _Value) -> None:
        self._names[-1][name] = value

    def _bind_target(self, target: ast.expr, value: _Value) -> None:
        if isinstance(target, ast.Name):
            self._bind(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List | ast.Starred):
            for each in getattr(target, "elts", None) or [getattr(target, "value", None)]:
                if each is not None:
                    self._bind_target(each, None)
        else:
            self.walk(target)

    # --- statements ---------------------------------------------------------------------------

    def _assign(self, node: ast.Assign) -> None:
        value = self.walk(node.value)
        for target in node.targets:
            self._bind_target(target, value)

    def _assign_one(self, node: ast.AnnAssign | ast.NamedExpr) -> _Value:
        value = self.walk(node.value) if node.value is not None else None
        if isinstance(node, ast.AnnAssign) and value is None:
            value = _instance(self.walk(node.annotation))
        self._bind_target(node.target, value)
        return value

    def _loop(self, node: ast.For | ast.AsyncFor | ast.comprehension) -> None:
        value = self.walk(node.iter)
        item = None
        if isinstance(value, _Object) and value.shape.container == "list":
            item = _Object(Shape(value.shape.of))
        if isinstance(value, _Object) and value.shape.container == "dict":
            value = None  # its keys
        self._bind_target(node.target, item)
        rest = node.ifs if isinstance(node, ast.comprehension) else [*node.body, *node.orelse]
        for each in rest:
            self.walk(each)

    def _with(self, node: ast.withitem) -> None:
        value = self.walk(node.context_expr)
        if node.optional_vars is not None:
            self._bind_target(node.optional_vars, value)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        """A body knows the names around it; what it binds stays inside."""
        if not isinstance(node, ast.Lambda):
            self._bind(node.name, None)
            for decorator in node.decorator_list:
                self.walk(decorator)
        arguments = node.args
        inside: dict[str, _Value] = {}
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            note = argument.annotation
            inside[argument.arg] = _instance(self.walk(note)) if note else None
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.walk(default)
        self._names.append(inside)
        for each in node.body if isinstance(node.body, list) else [node.body]:
            self.walk(each)
        self._names.pop()

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> None:
        self._names.append({})
        for generator in node.generators:
            self.walk(generator)
        for part in [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]:
            self.walk(part)
        self._names.pop()

    # --- expressions --------------------------------------------------------------------------

    def _name(self, node: ast.Name) -> _Value:
        value = next((names[node.id] for names in reversed(self._names) if node.id in names), None)
        if isinstance(value, _Class):
            self._use(value.entry.name, value.entry.mark, node)
        return value

    def _attribute(self, node: ast.Attribute) -> _Value:
        owner = self.walk(node.value)
        if isinstance(owner, _Module):
            return self._exported(owner.path, node.attr, node)
        if isinstance(owner, _Class) and owner.entry.kind == "class":
            return self._member(owner.entry.name, node)
        if isinstance(owner, _Object):
            if owner.shape.container == "dict" and node.attr == "values":
                shape = Shape(owner.shape.of, "list")
                return _Bound("dict", Member("values", keywords=(), result=shape))
            if not owner.shape.container and owner.shape.of in self._table.entries:
                return self._member(owner.shape.of, node)
        return None

    def _member(self, name: str, node: ast.Attribute) -> _Value:
        mark = self._table.entries[name].mark
        if mark.status == "not supported" or node.attr.startswith("__"):
            return None  # said already, where the class is named
        owner, member = self._table.member(name, node.attr)
        symbol = f"{owner}.{node.attr}"
        if member is None:
            note = f"Stellwerk's {owner} has none of that name"
            self._use(symbol, Mark("not supported", note), node)
            return None
        self._use(symbol, member.mark, node)
        if member.keywords is not None:
            return _Bound(symbol, member)
        return _Object(member.result) if member.result else None

    def _call(self, node: ast.Call) -> _Value:
        called = self.walk(node.func)
        for argument in node.args:
            self.walk(argument)
        for keyword in node.keywords:
            self.walk(keyword.value)
        if isinstance(called, _Class):
            call = called.entry.call
            if call is not None:
                self._use(called.entry.name, call.mark, node)
            self._keywords(called.entry.name, call, node)
            own = Shape(called.entry.name) if called.entry.kind == "class" else None
            made = (call and call.result) or own
            return _Object(made) if made else None
        if isinstance(called, _Bound):
            self._keywords(called.owner, called.member, node)
            self._literals(called.owner, node)
            return _Object(called.member.result) if called.member.result else None
        return None

    def _keywords(self, symbol: str, call: Member | None, node: ast.Call) -> None:
        if call is None or call.keywords is None or call.open:
            return
        if call.mark.status == "not supported":
            return
        for keyword in node.keywords:
            if keyword.arg is not None and keyword.arg not in call.keywords:
                note = f"takes {', '.join(call.keywords) or 'no arguments'}"
                self._use(f"{symbol}({keyword.arg}=)", Mark("not supported", note), node)

    def _literals(self, symbol: str, node: ast.Call) -> None:
        """Requirements and names of curated environments that are written out."""
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if symbol.startswith("CondaDependencies."):
            named = {"pip_packages", "pip_package", "conda_packages", "conda_package", None}
            chosen = [*node.args, *(k.value for k in node.keywords if k.arg in named)]
            for text, line in _texts(chosen):
                self.found.packages.append((text, place(self.label, line)))
        elif symbol == "Environment.get":
            for text, line in _texts(given):
                self.found.curated.append((text, place(self.label, line)))

    def _subscript(self, node: ast.Subscript) -> _Value:
        owner = self.walk(node.value)
        self.walk(node.slice)
        if isinstance(owner, _Object) and owner.shape.container:
            return _Object(Shape(owner.shape.of))
        return None

    def _use(self, symbol: str, mark: Mark, node: ast.AST) -> None:
        where = place(self.label, getattr(node, "lineno", None))
        self.found.uses.append(Use(symbol, mark, where))


def _instance(value: _Value) -> _Value:
    """An annotation's value as an object of that class."""
    return _Object(Shape(value.entry.name)) if isinstance(value, _Class) else None


def _texts(nodes: list[ast.expr]) -> list[tuple[str, int]]:
    parts = [
        each
        for node in nodes
        for each in (node.elts if isinstance(node, ast.List | ast.Tuple) else [node])
    ]
    return [
        (each.value, each.lineno)
        for each in parts
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]


def _unknown(path: str) -> Mark:
    return Mark("not supported", f"{path} is not part of what Stellwerk knows of the SDK")
