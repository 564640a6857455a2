"""Run on a node or pod of the lab: tries connections and says what came of them.

`probe.py JSON`: a list of attempts `[transport, address, port]`, source address and port may follow; prints a
list of `[what came, milliseconds]`, where what came is the first line that was received or the name of the
error. Connections stay open to the end, so that they can clash.

`probe.py hold ADDRESS PORT`: connects, prints the first line, and then sends each line it reads and prints
the answer.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import time
from typing import Any

TIMEOUT = 2.0
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def attempt(transport: str, address: str, port: int, *source: Any) -> tuple[str, socket.socket]:
    connection = socket.socket(socket.AF_INET, KINDS[transport])
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.settimeout(TIMEOUT)
    try:
        if source:
            connection.bind((source[0], source[1]))
        connection.connect((address, port))
        if transport == "udp":
            connection.send(b"hello")
        return connection.recv(1000).decode().strip(), connection
    except TimeoutError:
        return "timeout", connection
    except OSError as error:
        return errno.errorcode[error.errno or 0], connection


def main() -> None:
    if sys.argv[1] == "hold":
        said, connection = attempt("tcp", sys.argv[2], int(sys.argv[3]))
        print(said, flush=True)
        for line in sys.stdin:
            connection.sendall(line.encode())
            print(connection.recv(1000).decode().strip(), flush=True)
        return
    results, open_connections = [], []
    for arguments in json.loads(sys.argv[1]):
        begin = time.perf_counter()
        said, connection = attempt(*arguments)
        results.append([said, (time.perf_counter() - begin) * 1000])
        open_connections.append(connection)
    print(json.dumps(results))


main()
