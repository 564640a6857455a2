"""Commands for people who look at the mesh, or set it up, from outside."""
