"""The process on a node: it plans what this node does, programs the kernel and moves the traffic."""
