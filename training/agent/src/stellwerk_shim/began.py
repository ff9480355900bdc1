"""Imported first of all: what any interpreter has loaded when its script begins."""

import sys

WITH = frozenset(sys.modules)
