"""The commands of `meshctl`, one module each; what they show is decided elsewhere."""
