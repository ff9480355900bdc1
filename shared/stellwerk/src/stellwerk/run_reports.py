"""Logging into a run from outside: values in batches, files as blobs."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from stellwerk.answers import FileList
from stellwerk.api import RunFileView
from stellwerk.errors import ConflictError, UserError
from stellwerk.localfiles import HashedFile, LocalFile, hashed, local_file
from stellwerk.run_base import RunBase
from stellwerk.run_writer import EXIT_S, RecordWriter
from stellwerk.uploads import upload
from stellwerk_agent import protocol, uploads
from stellwerk_agent.reports import Reports

FILES_AT_ONCE = 500
LONGEST_NAME = 255


class ClientReports(RunBase, Reports):
    """``log``, ``log_image``, ``upload_file`` and the like on a run seen from outside."""

    def _prepare(self) -> None:
        self._writer: RecordWriter | None = None
        self._stored: dict[str, HashedFile] = {}

    def flush(self, timeout_seconds: float = EXIT_S) -> None:
        """Wait until the platform has everything logged. Raises what it refused."""
        if self._writer is not None:
            self._writer.flush(timeout_seconds)

    def files(self) -> list[RunFileView]:
        """The run's files with size and SHA-256, logs included."""
        return list(self._client.get(f"{self._path}/files", FileList).files)

    def upload_file(self, name: str, path_or_stream: Any, datastore_name: Any = None) -> None:
        """Keep a file with the run as it is now; ``path_or_stream`` a path or a binary stream.

        Raises ConflictError (file.exists) where the run has a file of that name.
        """
        del datastore_name
        name = self._file_name(name)
        if hasattr(path_or_stream, "read"):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, "file")
                with copy.open("wb") as out:
                    shutil.copyfileobj(path_or_stream, out, 1 << 20)
                self._give([(name, copy)])
        else:
            self._give([(name, Path(path_or_stream))])

    def upload_files(
        self,
        names: list[str],
        paths: list[str],
        return_artifacts: bool = False,
        timeout_seconds: float | None = None,
        datastore_name: Any = None,
    ) -> None:
        """Keep several files; both lists have the same length."""
        del return_artifacts, timeout_seconds, datastore_name
        if len(names) != len(paths):
            raise TypeError(f"upload_files: {len(names)} names for {len(paths)} paths")
        pairs = zip(names, paths, strict=True)
        self._give([(self._file_name(name), Path(path)) for name, path in pairs])

    def upload_folder(self, name: str, path: str, datastore_name: Any = None) -> None:
        """Keep every regular file below ``path``, under ``name``/; links are left out."""
        del datastore_name
        if not Path(path).is_dir():
            raise UserError(
                f"path: there is no folder at {path!r}", code="file.missing", field="path"
            )
        self._give(list(tree(Path(path), self._file_name(name))))

    def _give(self, files: Sequence[tuple[str, Path]], *, skip: bool = False) -> None:
        """Upload files and say so; one that the run has is refused, or left out with ``skip``."""
        taken = {file.path for file in self.files()}
        counted = Counter(name for name, _ in files)
        double = next((n for n, count in counted.items() if n in taken or count > 1), None)
        if double is not None and not skip:
            raise _exists(double)
        found = hashed(local_file(path, name) for name, path in files if name not in taken)
        upload(self._client, found, label="Files of the run")
        lines = [_line("file", each, n=each.entry.path) for each in found]
        for start in range(0, len(lines), FILES_AT_ONCE):
            self._records().send(lines[start : start + FILES_AT_ONCE])

    def _send(self, line: bytes) -> None:
        self._records().add(line)

    def _store(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        if name in self._stored:
            raise uploads.NameTakenError(f"file {name!r}: the run has a file of that name already")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            with path.open("wb") as out:
                write(out)
            file = hashed([LocalFile(path, name, path.stat().st_size)])[0]
            upload(self._client, [file])
        self._stored[name] = file

    def _record(self, kind: str, **fields: Any) -> None:
        stored = self._stored.get(fields.get("f", ""))
        if stored is None:
            super()._record(kind, **fields)
            return
        self._records().send([_line(kind, stored, **fields)])

    def _text(self, name: Any) -> str:
        text = super()._text(name)
        if len(text) > LONGEST_NAME:  # said here: the platform would refuse the whole batch
            raise UserError(
                f"name: {text[:40]!r}… has {len(text)} characters; a metric's name has at most "
                f"{LONGEST_NAME}",
                code="field.too_long",
                field="name",
            )
        return text

    def _refusal(self, text: str) -> Exception:
        return UserError(text)

    def _records(self) -> RecordWriter:
        if self._writer is None:
            self._writer = RecordWriter(self._client, self._path)
        return self._writer


def _line(kind: str, file: HashedFile, **fields: Any) -> bytes:
    entry = file.entry
    return protocol.line(kind, size=entry.size, sha256=entry.sha256, **fields)


def tree(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Every regular file below ``folder`` with its path in the run, links left out."""
    for here, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            path = Path(here, file)
            if path.is_file() and not path.is_symlink():
                yield f"{name}/{path.relative_to(folder).as_posix()}", path


def _exists(name: str) -> ConflictError:
    return ConflictError(
        f"name: the run has a file {name!r} already, and files of a run never change; choose "
        "another name.",
        code="file.exists",
        field="name",
    )
