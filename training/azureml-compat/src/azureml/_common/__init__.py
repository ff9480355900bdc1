"""Import path that v1 code uses for exceptions."""
