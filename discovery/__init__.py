"""What exists in the cluster: the model, the sources that report it, the registry that joins it, and DNS."""

__distribution__ = "svcmesh"  # who this package belongs to: see nodeagent.start
