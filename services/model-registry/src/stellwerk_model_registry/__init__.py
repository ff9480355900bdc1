"""The model registry: versions of models and what each was made from."""
