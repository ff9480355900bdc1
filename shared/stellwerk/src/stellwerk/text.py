"""Text of strangers on a terminal: control sequences must not move the cursor or set titles."""

import codecs
import re

# Complete control sequences (colours, cursor movement, titles), then any control character left.
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS, SOS, PM, APC with their text
    r"|\x1b[ -/]*[0-Z\\^-~]"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?\Z")
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_LONGEST_SEQUENCE = 4096


class LogText:
    """Bytes of a log to printable text, chunk by chunk.

    Invalid UTF-8 becomes U+FFFD. With ``neutralise`` control sequences are left out and other
    control characters but newline, carriage return and tab become U+FFFD as well.
    """

    def __init__(self, *, neutralise: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._neutralise = neutralise
        self._held = ""

    def feed(self, chunk: bytes, *, final: bool = False) -> str:
        """The text of ``chunk``; an unfinished character or sequence waits for the next one."""
        text = self._held + self._decoder.decode(chunk, final)
        self._held = ""
        if not self._neutralise:
            return text
        unfinished = None if final else _UNFINISHED.search(text)
        if unfinished and len(text) - unfinished.start() <= _LONGEST_SEQUENCE:
            text, self._held = text[: unfinished.start()], text[unfinished.start() :]
        return harmless(text)


def harmless(text: str) -> str:
    """``text`` without control sequences, other control characters shown as U+FFFD."""
    return _CONTROL.sub("\ufffd", _SEQUENCE.sub("", text.replace("\b", "")))
