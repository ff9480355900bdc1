"""The dataset service: immutable datasets, their versions, datastores, web files."""
