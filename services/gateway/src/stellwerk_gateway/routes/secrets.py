"""Secrets. A value is in the body of a PUT and in the answer to a GET, never in an address."""

from typing import Annotated

from fastapi import APIRouter, Body, Query

from stellwerk.api import Page, SecretRequest, SecretValueView, SecretView
from stellwerk_gateway import examples
from stellwerk_gateway.fields import PageQuery, SecretId
from stellwerk_gateway.platform import Here
from stellwerk_gateway.problems import documented

router = APIRouter(tags=["secrets"])


@router.put(
    "/secrets/{name}",
    summary="Set a secret",
    responses=documented(400, 408, 409, 413, 415),
)
async def set_secret(
    name: SecretId,
    body: Annotated[SecretRequest, Body(openapi_examples=examples.SECRET)],
    platform: Here,
) -> SecretView:
    """Stored encrypted, in place of the value before; at most 25 KiB of text."""
    return await platform.ask("keyvault", "secret-set", SecretView, name=name, value=body.value)


@router.get("/secrets", summary="List secrets")
async def list_secrets(query: Annotated[PageQuery, Query()], platform: Here) -> Page[SecretView]:
    """Names and times, never values."""
    return await platform.ask("keyvault", "secret-list", Page[SecretView], **query.model_dump())


@router.get("/secrets/{name}", summary="Read a secret", responses=documented(404, 409))
async def get_secret(name: SecretId, platform: Here) -> SecretValueView:
    """The value; a token of scope `read` may not. Letter case of names does not matter."""
    return await platform.ask("keyvault", "secret-get", SecretValueView, name=name)


@router.delete("/secrets/{name}", summary="Delete a secret", responses=documented(404))
async def delete_secret(name: SecretId, platform: Here) -> SecretView:
    """Forgotten at once."""
    return await platform.ask("keyvault", "secret-delete", SecretView, name=name)
