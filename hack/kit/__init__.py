"""What the demo, the lab, the control plane, the benchmark and tests share: processes, ports, manifests."""
