"""Identifiers: the only home of random and derived ids.

An id is a subject token as well, so it matches ``[a-z0-9-]{1,40}``.
"""

import re
import uuid

ID_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,254}$"
MODEL_NAME_PATTERN = r"^[a-zA-Z0-9][A-Za-z0-9_.-]{0,254}$"
VAULT_NAME_PATTERN = r"^[A-Za-z0-9-]{1,127}$"

_ID = re.compile(ID_PATTERN)
_NAMESPACE = uuid.UUID("6f1c0a52-5d0e-4b0b-9a55-7f6b2f6d3a10")


def is_id(text: str) -> bool:
    """Whether ``text`` may stand as one subject token."""
    return _ID.fullmatch(text) is not None


def run_id(workspace: str, idempotency_key: str) -> str:
    """The run id that belongs to one Idempotency-Key: 32 hex digits, the same every time."""
    return uuid.uuid5(_NAMESPACE, f"{workspace}/run/{idempotency_key}").hex


def derived_id(*parts: str) -> str:
    """32 hex digits derived from ``parts``, the same every time."""
    return uuid.uuid5(_NAMESPACE, "\x1f".join(parts)).hex


def new_id() -> str:
    """32 random hex digits."""
    return uuid.uuid4().hex  # noqa: TID251 - the one home of random ids
