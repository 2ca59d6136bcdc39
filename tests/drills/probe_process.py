"""Asks for a sign of life again and again until its input ends: `python probe_process.py PORT`.

Prints `begun` after the first answer, and at the end how long each took, in seconds. A process of its own, for that
of the fakes is busy itself.
"""

import select
import socket
import sys
import time

EVERY_S = 0.01
REQUEST = b"GET /monitoring/healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def ask(port: int) -> float:
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
    return time.perf_counter() - begun


if __name__ == "__main__":
    port = int(sys.argv[1])
    ask(port)
    print("begun", flush=True)
    took = []
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        took.append(ask(port))
    print(*took)
