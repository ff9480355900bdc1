"""Open datasets."""
