"""What manifests and image are made and checked with: pinned Go tools, and a container's confinement."""
