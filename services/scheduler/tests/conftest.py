"""Lets the tests of this folder share `scripted_facts.py` (pytest's importlib mode does not)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
