"""TensorBoard on runs."""
