"""The boards for Grafana, one module each; `hack.manifests.dashboard` writes them."""
