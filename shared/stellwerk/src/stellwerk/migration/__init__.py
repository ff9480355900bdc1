"""Reads code written for the Azure ML SDK v1 and says what becomes of it here. Runs nothing."""
