"""What this node does about the cluster: values, and pure functions that make and compare them."""
