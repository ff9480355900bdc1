"""``python -m stellwerk_gpu_executor``."""

from stellwerk_gpu_executor.app import build
from stellwerk_gpu_executor.settings import Settings
from stellwerk_kit.service import run

run("gpu-executor", Settings, build)
