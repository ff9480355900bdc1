"""The v1 SDK's data objects."""
