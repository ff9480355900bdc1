"""environment-build: locked, byte-compiled environments, each built once and cached by its id."""
