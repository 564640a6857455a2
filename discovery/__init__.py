"""What exists in the cluster: the model, the sources that report it, the registry that joins it, and DNS."""
