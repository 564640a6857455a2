"""Nodes and pods as network namespaces: `python -m hack.lab shell`, and `Lab` for tests."""
