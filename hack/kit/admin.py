"""What an agent says of itself at its admin address."""

from __future__ import annotations

import http.client

from hack.kit.ports import LOCALHOST


def is_ready(port: int) -> bool:
    """Return whether the agent whose admin server has this port says that it is ready."""
    connection = http.client.HTTPConnection(LOCALHOST, port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
