"""The run outside a run, as v1 code knows it: it prints, and lacks what the original lacked."""

from typing import Any

from stellwerk_agent import _OfflineRun as _Printing


class _OfflineRun(_Printing):
    """Stands in for a run on a laptop."""

    def log(self, name: str, value: Any, description: str = "") -> None:  # type: ignore[override]
        """Print the metric. There is no ``step`` here, as in the original."""
        super().log(name, value, description)

    def child_run(self, name: "str | None" = None, run_id: "str | None" = None) -> "_OfflineRun":
        """Return another one that prints."""
        del name
        return _OfflineRun(run_id)
