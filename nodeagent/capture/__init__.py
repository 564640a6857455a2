"""How traffic to mesh addresses reaches the workers: nftables on a node, loopback on a laptop."""
