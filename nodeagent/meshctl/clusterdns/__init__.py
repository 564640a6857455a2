"""`meshctl dns` makes the cluster's DNS forward the mesh zone. Decisions are pure, effects at the edge."""
