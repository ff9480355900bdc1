"""The platform itself."""

from stellwerk.api.base import View


class InfoView(View):
    """Answer of ``GET /api/v1/info``."""

    version: str
    workspace: str
    services: dict[str, str] = {}
    limits: dict[str, int] = {}
