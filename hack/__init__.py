"""Development tools: the demo, the lab of network namespaces, the benchmark."""
