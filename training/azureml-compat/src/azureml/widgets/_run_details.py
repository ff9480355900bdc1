"""``RunDetails``: a run at a glance, live in a notebook, once in a terminal. Never blocks."""

import sys
import threading
from html import escape
from importlib import import_module
from typing import Any

from azureml.exceptions import AzureMLException, UserErrorException
from stellwerk.run import Run
from stellwerk.runstate import TERMINAL

METRICS_SHOWN = 12


class RunDetails:
    """Shows a run: status, phases, latest values, and where its page is."""

    def __init__(self, run_instance: Run) -> None:
        if not isinstance(run_instance, Run):
            raise UserErrorException(
                f"run_instance: got {type(run_instance).__name__}; give the Run submit() returned"
            )
        self._run = run_instance

    def __repr__(self) -> str:
        return f"RunDetails({self._run.id})"

    def show(self, render_lib: object = None, widget_settings: object = None) -> None:
        """Display the run. A notebook's cell ends at once and its output follows the run."""
        del render_lib, widget_settings
        display = _notebook_display()
        if display is None:
            print(self._text())  # noqa: T201 - showing is what was asked for
            return
        handle = display.display(_Html(self._html()), display_id=True)
        if self._run.view.status not in TERMINAL:
            threading.Thread(target=self._follow, args=(handle,), daemon=True).start()

    def get_widget_data(self, widget_settings: object = None) -> dict[str, Any]:
        """What is shown, as data."""
        del widget_settings
        view = self._run.refresh()
        return {
            "status": view.status,
            "workbench_run_details_uri": self._run.get_portal_url(),
            "run_id": view.run_id,
            "run_properties": {
                "run_id": view.run_id,
                "experiment_name": view.experiment,
                "status": view.status,
                "phases": dict(view.phases),
                "tags": dict(view.tags),
                "properties": dict(view.properties),
            },
            "run_metrics": self._run.get_metrics(),
        }

    def _follow(self, handle: Any) -> None:
        """Show every change of status until the run has ended."""
        try:
            for _ in self._run.events(self._run.view.sequence):
                handle.update(_Html(self._html()))
            handle.update(_Html(self._html()))
        except AzureMLException as error:
            handle.update(_Html(f"<p>No longer live: {escape(str(error))}</p>{self._html_of({})}"))

    def _rows(self) -> dict[str, str]:
        view = self._run.refresh()
        rows = {"Run": view.display_name or view.run_id, "Experiment": view.experiment}
        rows["Status"] = view.status
        rows |= {
            f"Phase {name.replace('_', '-')}": f"{seconds:.1f} s"
            for name, seconds in view.phases.items()
        }
        if view.error is not None:
            rows["Error"] = view.error.message
        latest = {
            name: value[-1] if isinstance(value, list) and value else value
            for name, value in self._run.get_metrics().items()
        }
        return rows | {name: str(value) for name, value in list(latest.items())[:METRICS_SHOWN]}

    def _text(self) -> str:
        rows = self._rows() | {"Web View": self._run.get_portal_url()}
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())

    def _html(self) -> str:
        return self._html_of(self._rows())

    def _html_of(self, rows: dict[str, str]) -> str:
        cells = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th>'
            f'<td style="text-align:left">{escape(value)}</td></tr>'
            for name, value in rows.items()
        )
        link = escape(self._run.get_portal_url())
        return (
            f'<table>{cells}</table><a href="{link}" target="_blank" rel="noopener">'
            "Live page of the run</a>"
        )


class _Html:
    """Markup that IPython displays as such."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text


def _notebook_display() -> Any:
    """IPython's display module inside a notebook's kernel, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return import_module("IPython.display")
