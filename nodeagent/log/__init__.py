"""Logging: how lines look, and how they get out without ever holding up the mesh."""
