"""Two pages for people: what this is, and all routes. No script, nothing from elsewhere."""

import html
import json
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse, JSONResponse, Response

from stellwerk_gateway import body_tables

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; text-transform: capitalize }
summary { cursor: pointer; padding: .3rem 0 }
code, pre { font: 14px/1.4 ui-monospace, monospace }
pre { background: #8882; padding: .7rem; overflow: auto; border-radius: .3rem }
table { border-collapse: collapse } td, th { text-align: left; padding: .15rem 1rem .15rem 0 }
.method { display: inline-block; min-width: 4.5rem; font-weight: 600 }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd } a { color: #8bf } }
"""
HOME = """
<h1>Stellwerk</h1>
<p>Runs Keras training jobs on your own machines: register data, describe an environment once,
submit a script, watch it, keep what it leaves.</p>
<ul>
<li><a href="/experiments">Experiments and their runs</a></li>
<li><a href="/docs">The REST interface</a>, every route with its parameters and answers</li>
<li><a href="/openapi.json">The same for programs</a> (OpenAPI)</li>
</ul>
<p>Everything under <code>/api/v1</code> wants a token:
<code>Authorization: Bearer &lt;token&gt;</code>. On the machine that runs the platform,
<code>stellwerk</code> finds it by itself.</p>
"""


def router(description: dict[str, Any]) -> APIRouter:
    """The pages; ``description`` is the OpenAPI document."""
    pages = APIRouter()
    docs = _page("Stellwerk: REST interface", _routes(description))
    home = _page("Stellwerk", HOME)

    @pages.get("/")
    async def show_home() -> Response:
        return HTMLResponse(home)

    @pages.get("/docs")
    async def show_docs() -> Response:
        return HTMLResponse(docs)

    @pages.get("/docs.css")
    async def show_style() -> Response:
        return Response(STYLE, media_type="text/css")

    @pages.get("/openapi.json")
    async def show_description() -> Response:
        return JSONResponse(description)

    return pages


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>"
        f'<link rel="stylesheet" href="/docs.css"></head><body>{body}</body></html>'
    )


def _routes(description: dict[str, Any]) -> str:
    """All operations by tag, each one folded."""
    groups: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            tag = operation["tags"][0]
            groups.setdefault(tag, []).append(_operation(method.upper(), path, operation))
    about = html.escape(description["info"]["description"])
    found = [f"<h1>REST interface</h1><p>{about}</p>"]
    for tag, operations in groups.items():
        found.append(f"<h2>{html.escape(tag)}</h2>{''.join(operations)}")
    bodies = body_tables.tables(description.get("components", {}).get("schemas", {}))
    return "".join([*found, f"<h2>Bodies</h2>{bodies}"])


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(map(_parameter, operation.get("parameters", ())))
    answers = "".join(
        f"<tr><td>{html.escape(status)}</td><td>{html.escape(answer['description'])}</td>"
        f"<td>{_json(answer)}</td></tr>"
        for status, answer in sorted(operation["responses"].items())
    )
    body = _json(operation.get("requestBody", {}))
    return (
        f'<details><summary><code><span class="method">{method}</span> {html.escape(path)}</code>'
        f" {html.escape(operation['summary'])}</summary>"
        f"<p>{html.escape(operation.get('description', ''))}</p>"
        + (f"<h4>Parameters</h4><table>{parameters}</table>" if parameters else "")
        + (f"<h4>Body</h4><p>{body}</p>" if body else "")
        + _examples(operation)
        + f"<h4>Answers</h4><table>{answers}</table></details>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    need = "required" if parameter.get("required") else ""
    cells = (parameter["name"], parameter["in"], need, parameter.get("description", ""))
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def _json(message: dict[str, Any]) -> str:
    """What the JSON of a request or an answer is, linked to its table."""
    schema = message.get("content", {}).get("application/json", {}).get("schema")
    return body_tables.kind(schema) if schema else ""


def _examples(operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    examples = content.get("application/json", {}).get("examples", {})
    return "".join(
        f"<h4>{html.escape(example['summary'])}</h4>"
        f"<pre>{html.escape(json.dumps(example['value'], indent=2))}</pre>"
        for example in examples.values()
    )
