"""`make bench`: the agent beside nginx, HAProxy, Envoy and dnsmasq, and how it does at size."""
