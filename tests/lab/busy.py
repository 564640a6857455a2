"""Run on a node of the lab: takes ports that an agent wants, until it is ended."""

from __future__ import annotations

import signal
import socket

admin = socket.create_server(("0.0.0.0", 15000))
worker = socket.create_server(("::", 15001), family=socket.AF_INET6)
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.bind(("0.0.0.0", 15053))
print("listening", flush=True)
signal.pause()
