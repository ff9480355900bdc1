"""Pages of runs and experiments. They hold no data: their script asks the REST interface.

The same page answers for every id, so it tells nobody whether a run exists. The script keeps the
token in the tab's sessionStorage and puts values into the page as text only.
"""

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

from stellwerk.errors import NotFoundError

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def router() -> APIRouter:
    """The pages and what they load from here."""
    folder = files("stellwerk_gateway") / "web"
    texts = {each.name: each.read_text() for each in folder.iterdir() if each.is_file()}
    shell = texts.pop("page.html")
    run, experiments = (shell.replace("{script}", name) for name in ("run.js", "experiments.js"))
    pages = APIRouter()

    @pages.get("/runs/{run_id}")
    async def show_run(run_id: str) -> Response:
        del run_id
        return HTMLResponse(run)

    @pages.get("/experiments")
    @pages.get("/experiments/{name}")
    async def show_experiments(name: str = "") -> Response:
        del name
        return HTMLResponse(experiments)

    @pages.get("/web/{name}")
    async def show_part(name: str) -> Response:
        if name not in texts:
            raise NotFoundError("There is no such page.", code="route.not_found")
        return Response(texts[name], media_type=_TYPES["." + name.rpartition(".")[2]])

    return pages
