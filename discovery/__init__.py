"""What exists in the cluster: the model, the sources that tell it, the registry that joins it, and DNS."""
