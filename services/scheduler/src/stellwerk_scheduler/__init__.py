"""The scheduler: owner of runs, clusters, nodes and leases. Only it moves a run."""
