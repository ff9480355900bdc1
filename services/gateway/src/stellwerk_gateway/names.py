"""Free texts that people see as names: which characters they may have. Pure.

Letters of every script and emoji are fine; characters that are invisible or turn the text around
are not, because two names must not look alike and a log line must stay one line.
"""

import unicodedata

from stellwerk.errors import UserError

ZERO_WIDTH_JOINER = "\u200d"  # holds emoji together


def checked_name(text: str, field: str) -> str:
    """``text`` in NFC. Raises UserError ``name.charset`` for control or invisible characters."""
    for position, character in enumerate(text):
        hidden = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        if hidden and character != ZERO_WIDTH_JOINER:
            raise UserError(
                f"{field}: character U+{ord(character):04X} at position {position} is not allowed; "
                "leave out control characters, line breaks and direction marks.",
                code="name.charset",
                field=field,
            )
    return unicodedata.normalize("NFC", text)
