"""Statements of the hot path: written with SQLAlchemy's Core, run by the driver itself.

Core builds and checks a statement once for each dialect and set of columns; after that its text
goes to the driver's cursor with the values in place. That is a sixth of what Core costs a
statement, and a run is some fifty of them. Types are converted both ways as Core does, errors
are the ones Core raises. Statements whose text depends on their values (``IN`` over a list that
grows) stay with Core, or take one form for each length, as :class:`Sized`.
"""

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, Dialect, Executable, bindparam
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

Values = Mapping[str, Any]
Convert = Callable[[Any], Any]


class _Form:
    """A statement's text for one dialect and one set of given values."""

    def __init__(self, statement: Any, dialect: Dialect, names: tuple[str, ...]) -> None:
        compiled: SQLCompiler = statement.compile(dialect=dialect, column_keys=list(names))
        if compiled.post_compile_params or compiled.literal_execute_params:
            raise ValueError(f"the text of {compiled} depends on its values")
        self.text, self.dialect = str(compiled), dialect
        self._compiled, self._named = compiled, not compiled.positional
        order = list(compiled.params) if self._named else compiled.positiontup or []
        into = {n: p for n, p in compiled._bind_processors.items() if callable(p)}  # noqa: SLF001
        fixed = {n: v for n, v in compiled.params.items() if n not in names}
        self._plan: list[tuple[str, Convert | None, Any]] = [
            (name, into.get(name), fixed.get(name)) for name in order
        ]
        self._make: Callable[[Iterable[Any]], Any] | None = None
        self._out: list[tuple[int, Convert]] = []

    def values(self, given: Values) -> Any:
        """What the driver is given."""
        row = [
            (value if into is None else into(value))
            for name, into, fixed in self._plan
            for value in (given.get(name, fixed),)
        ]
        return dict(zip((step[0] for step in self._plan), row, strict=True)) if self._named else row

    def plain(self, names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Any:
        """Rows as the driver takes them: as they are where it takes what it is given."""
        order = tuple(name for name, _, _ in self._plan)
        if order == names and not self._named and not any(into for _, into, _ in self._plan):
            return rows
        return [self.values(dict(zip(names, row, strict=True))) for row in rows]

    def rows(self, cursor: Any, raw: Sequence[Sequence[Any]]) -> list[Any]:
        """Rows with their columns by name."""
        if self._make is None:
            self._describe(cursor)
        make = self._make
        assert make is not None  # noqa: S101 - it was just described
        if not self._out:
            return [make(row) for row in raw]
        found = []
        for row in raw:
            columns = list(row)
            for place, convert in self._out:
                columns[place] = convert(columns[place])
            found.append(make(columns))
        return found

    def _describe(self, cursor: Any) -> None:
        columns = self._compiled._result_columns  # noqa: SLF001 - as the library's own results do
        for place, column in enumerate(columns):
            kind = cursor.description[place][1]
            convert = column.type._cached_result_processor(self.dialect, kind)  # noqa: SLF001
            if convert is not None:
                self._out.append((place, convert))
        names = tuple(column.name for column in columns)
        row: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # noqa: PYI024
        self._make = row._make


class Prepared:
    """One statement. Use it within a transaction."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._forms: dict[tuple[str, tuple[str, ...]], _Form] = {}

    def all(self, conn: Connection, values: Values) -> list[Any]:
        """All rows, as named tuples."""
        form, cursor = self._run(conn, values)
        raw = cursor.fetchall()
        return form.rows(cursor, raw) if raw else []

    def first(self, conn: Connection, values: Values) -> Any | None:
        """The first row, None if there is none."""
        form, cursor = self._run(conn, values)
        raw = cursor.fetchone()
        found = None if raw is None else form.rows(cursor, [raw])[0]
        cursor.close()
        return found

    def scalar(self, conn: Connection, values: Values) -> Any:
        """The first column of the first row, None if there is no row."""
        row = self.first(conn, values)
        return None if row is None else row[0]

    def run(self, conn: Connection, values: Values) -> int:
        """Change rows; how many."""
        return int(self._run(conn, values)[1].rowcount)

    def insert(self, conn: Connection, values: Values) -> int:
        """Add a row; the number the database gave it, 0 where it gives none."""
        cursor = self._run(conn, values)[1]
        if cursor.description:
            return int(cursor.fetchone()[0] or 0)
        return int(getattr(cursor, "lastrowid", 0) or 0)  # PostgreSQL's driver has none

    def each(self, conn: Connection, values: Sequence[Values]) -> None:
        """Run it for each of ``values``, which all have the same names."""
        if values:
            form = self._form(conn.dialect, tuple(values[0]))
            self._call(conn, form, "executemany", [form.values(each) for each in values])

    def each_row(
        self, conn: Connection, names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]
    ) -> None:
        """Run it for each of ``rows``, whose values are for ``names``; for rows by the thousand."""
        form = self._form(conn.dialect, names)
        self._call(conn, form, "executemany", form.plain(names, rows))

    def _run(self, conn: Connection, values: Values) -> tuple[_Form, Any]:
        form = self._form(conn.dialect, tuple(values))
        return form, self._call(conn, form, "execute", form.values(values))

    def _form(self, dialect: Dialect, names: tuple[str, ...]) -> _Form:
        key = dialect.name, names
        found = self._forms.get(key)
        if found is None:
            found = self._forms[key] = _Form(self._statement, dialect, names)
        return found

    @staticmethod
    def _call(conn: Connection, form: _Form, how: str, values: Any) -> Any:
        cursor = conn.connection.cursor()
        try:
            getattr(cursor, how)(form.text, values)
        except Exception as error:
            raise _as_core(conn, form.text, values, error) from error
        return cursor


class Sized:
    """A statement over some values: ``build`` gets their parameters.

    There is one form for each power of two; the last value fills a form up.
    """

    def __init__(self, build: Callable[[list[BindParameter[Any]]], Executable]) -> None:
        self._build = build
        self._forms: dict[int, Prepared] = {}

    def all(self, conn: Connection, values: Sequence[Any]) -> list[Any]:
        """All rows for ``values``; none for no values."""
        if not values:
            return []
        size = 1 << (len(values) - 1).bit_length()
        form = self._forms.get(size)
        if form is None:
            names: list[BindParameter[Any]] = [bindparam(f"v{number}") for number in range(size)]
            form = self._forms[size] = Prepared(self._build(names))
        padded = [*values, *[values[-1]] * (size - len(values))]
        return form.all(conn, {f"v{number}": value for number, value in enumerate(padded)})


def _as_core(conn: Connection, text: str, values: Any, error: Exception) -> BaseException:
    """The error as Core raises it; a connection that is gone is given up, as there."""
    driver: Any = conn.dialect.dbapi
    if not isinstance(error, driver.Error):
        return error
    gone = conn.dialect.is_disconnect(error, conn.connection, None)
    wrapped: BaseException = DBAPIError.instance(
        text, values, error, driver.Error, connection_invalidated=gone, dialect=conn.dialect
    )
    if gone:
        conn.invalidate(error)
    return wrapped
