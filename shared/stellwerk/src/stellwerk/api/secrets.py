"""Secrets: only one body holds a value."""

from datetime import datetime

from pydantic import ConfigDict, Field

from stellwerk.api.base import View
from stellwerk.runspec import Spec

MAX_SECRET_BYTES = 25 * 1024


class SecretRequest(Spec):
    """Body of ``PUT /api/v1/secrets/{name}``: at most 25 KiB of text, shown nowhere."""

    model_config = ConfigDict(hide_input_in_errors=True)

    value: str = Field(repr=False)


class SecretView(View):
    """A secret without its value."""

    name: str
    created_at: datetime
    updated_at: datetime


class SecretValueView(SecretView):
    """A secret with its value: the answer of ``GET /api/v1/secrets/{name}`` alone."""

    value: str = Field(repr=False)
