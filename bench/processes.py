"""Processes under measurement: on which core they run, what their tree costs, how they end."""

import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
MEASURED_CORE = CORES[0]
LOAD_CORE = CORES[-1]
"""With one core only, both are the same, and latencies mean nothing."""

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_places: deque[int] = deque()
"""Descriptors of sockets that keep the ports given last."""
MOST_PLACES = 64


def start(
    command: Sequence[str], core: int, out: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """`command`, pinned; its output goes to `<out>.out` and `<out>.err`."""
    with out.with_suffix(".out").open("ab") as stdout, out.with_suffix(".err").open("ab") as stderr:
        return subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env
        )


def stop(process: subprocess.Popen[bytes], patience_s: float = 5.0) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """One that nobody had; nobody is given it by chance until this was called many times more."""
    place = keep_port()
    port: int = place.getsockname()[1]
    if len(_places) >= MOST_PLACES:
        os.close(_places.popleft())
    _places.append(place.detach())
    return port


def keep_port(port: int = 0) -> socket.socket:
    """Has the port and does not listen: who asks the system for any port, to listen or to connect, gets another one.

    port  one where others listen that said SO_REUSEPORT, or nobody; 0: any

    Who listens beside it has to say SO_REUSEADDR, as servers do, or SO_REUSEPORT.
    """
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    place.bind(("127.0.0.1", port))
    return place


def status_of(port: int, path: str) -> int:
    """Status of a GET; 0 where nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
            line = connection.recv(64)
    except OSError:
        return 0
    parts = line.split(b" ", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0


def seconds_until(port: int, path: str, process: subprocess.Popen[bytes], patience_s: float = 20.0) -> float:
    """How long until `path` answers 200, looked at every 5 ms; raises where it never does."""
    started = time.perf_counter()
    while time.perf_counter() - started < patience_s:
        if status_of(port, path) == 200:
            return time.perf_counter() - started
        if process.poll() is not None:
            raise RuntimeError(f"process ended with {process.returncode} before {path} answered 200")
        time.sleep(0.005)
    raise RuntimeError(f"{path} did not answer 200 within {patience_s} s (last status {status_of(port, path)})")


def wait_for_port(port: int, process: subprocess.Popen[bytes], patience_s: float = 10.0) -> None:
    started = time.perf_counter()
    while time.perf_counter() - started < patience_s and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise RuntimeError(f"nothing listens on port {port}: {process.args!r}")


def cpu_s(root: int) -> float:
    """User and system time of a process and all below it, so far."""
    fields = (stat for pid in _tree(root) if (stat := _stat(pid)))
    return sum(int(stat[11]) + int(stat[12]) for stat in fields) * _TICK_S


def rss_mb(root: int) -> float:
    """Resident memory of a process and all below it; shared pages count once for each."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in _tree(root))
    return pages * _PAGE_BYTES / 1e6


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the name, state first; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def children() -> dict[int, list[int]]:
    """Of each process that has any, zombies included."""
    found: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            found.setdefault(int(stat[1]), []).append(int(entry))
    return found


def _tree(root: int) -> list[int]:
    below = children()
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += below.get(pid, [])
    return found
