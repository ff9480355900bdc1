"""The v1 SDK's ScriptRunConfig."""

from stellwerk.script_run_config import ScriptRunConfig

__all__ = ["ScriptRunConfig"]
