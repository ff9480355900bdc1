"""What ``wait_for_completion`` prints, in the exact form of the v1 SDK."""

import json
from typing import Any, TextIO

from stellwerk.text import LogText, harmless
from stellwerk.watch import LogChunk


class RunPrinter:
    """Prints one run. Control sequences are taken out of logs on a terminal, unless ``raw``."""

    def __init__(self, run_id: str, url: str, out: TextIO, *, raw: bool = False) -> None:
        self._run_id, self._url, self._out = run_id, url, out
        self._neutralise = out.isatty() and not raw
        self._log: tuple[int, str] | None = None
        self._text = LogText(neutralise=self._neutralise)
        self._at_line_start = True

    def begin(self) -> None:
        """The two lines at the top."""
        self._print(f"RunId: {self._run_id}\nWeb View: {self._url}\n")

    def log(self, chunk: LogChunk) -> None:
        """Some bytes of a log, under a heading where it is another log than before."""
        if self._log != chunk.key:
            self._finish_log()
            self._log = chunk.key
            path = harmless(chunk.path)
            self._print(f"\nStreaming {path}\n{'=' * (len(path) + 10)}\n\n")
        self._print(self._text.feed(chunk.data))

    def end(self, details: dict[str, Any], *, with_error: bool) -> None:
        """The summary."""
        self._finish_log()
        heading = "Execution Summary"
        self._print(f"\n{heading}\n{'=' * len(heading)}\n")
        self.begin()
        if details["warnings"]:
            self._print(f"\nWarnings:\n{json.dumps(details['warnings'], indent=4)}\n")
        if with_error and details.get("error"):
            self._print(f"\nError:\n{json.dumps(details['error'], indent=4)}\n")
        self._print("\n")

    def _finish_log(self) -> None:
        if self._log is not None:
            self._print(self._text.feed(b"", final=True))
            if not self._at_line_start:
                self._print("\n")
        self._text = LogText(neutralise=self._neutralise)

    def _print(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
            self._at_line_start = text.endswith("\n")
