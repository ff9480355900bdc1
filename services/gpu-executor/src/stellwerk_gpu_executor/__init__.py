"""Runs attempts on one machine and provides its nodes."""
