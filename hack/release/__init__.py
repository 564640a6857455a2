"""Releases: what `make dist` builds, and how `make release` makes a version of it."""
