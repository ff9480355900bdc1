"""Runs a file of cells (``# %%``) as a notebook does: one by one in one namespace.

The value of a cell's last expression is displayed, as HTML where the object can. The first cell
that fails ends it with its traceback and exit code 1.
"""

import ast
import linecache
import re
import sys
import traceback
from pathlib import Path


def display(value: object) -> None:
    """What a notebook shows below a cell."""
    if value is None:
        return
    as_html = getattr(value, "_repr_html_", None)
    print(f"Out: {as_html() if callable(as_html) else repr(value)}")


def run(cell: str, name: str, namespace: dict[str, object]) -> None:
    """Execute one cell and display its last value."""
    tree = ast.parse(cell)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), namespace)
    if isinstance(last, ast.Expr):
        display(eval(compile(ast.Expression(last.value), name, "eval"), namespace))


def main(path: str) -> int:
    """0, or 1 after a failed cell."""
    namespace: dict[str, object] = {"__name__": "__main__", "display": display}
    for number, cell in enumerate(re.split(r"(?m)^# %%.*$", Path(path).read_text())):
        name = f"<cell {number}>"
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        try:
            run(cell, name, namespace)
        except Exception:
            print(f"cell {number} failed:\n{cell.strip()}\n")
            traceback.print_exc(file=sys.stdout)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
