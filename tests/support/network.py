"""A network of one's own, with a name server of one's own: what no fake server can do is done by the kernel.

Needs root, `ip` and `nft`; `why_not()` says what is missing. Nothing of it is seen outside of this process and those
that it starts meanwhile.
"""

import asyncio
import ctypes
import errno
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_NETWORK, _NEW_MOUNTS = 0x40000000, 0x00020000
_PRIVATE = 0x40000 | 0x4000  # MS_PRIVATE | MS_REC
_BIND = 0x1000
THREADS_END_WITHIN_S = 5.0
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str:
    """What is missing; empty: nothing."""
    if os.geteuid() != 0:
        return "needs root, for a network namespace of its own"
    lacking = [name for name in ("ip", "nft") if shutil.which(name) is None]
    return f"needs {' and '.join(lacking)}" if lacking else ""


@contextmanager
def own_network(folder: Path) -> Iterator[None]:
    """A loopback device, no other; `localhost` and whatever 127.0.0.1:53 says are its names."""
    homes = [(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY), flag) for kind, flag in _KINDS]
    _check(_libc.unshare(_NEW_NETWORK | _NEW_MOUNTS), "unshare")
    try:
        _check(_libc.mount(b"none", b"/", None, _PRIVATE, None), "mount")
        _run("ip", "link", "set", "lo", "up")
        for name, text in (("resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n"), ("hosts", _HOSTS)):
            (folder / name).write_text(text)
            _check(_libc.mount(str(folder / name).encode(), f"/etc/{name}".encode(), None, _BIND, None), name)
        yield
    finally:
        for home, flag in homes:
            _go_home(home, flag)
            os.close(home)


def _go_home(home: int, flag: int) -> None:
    """A thread that began in here holds the mounts until it has ended; asyncio waits for each process in one."""
    until = time.monotonic() + THREADS_END_WITHIN_S
    while _libc.setns(home, flag):
        if ctypes.get_errno() != errno.EINVAL or time.monotonic() > until:
            raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")
        time.sleep(0.01)


_KINDS = (("net", _NEW_NETWORK), ("mnt", _NEW_MOUNTS))
_HOSTS = "127.0.0.1 localhost\n"


@contextmanager
def dropped(port: int) -> Iterator[None]:
    """Whoever connects to this port of the own network meanwhile gets no answer: the first packet is dropped."""
    _run("nft", "add", "table", "inet", "drill")
    _run("nft", "add chain inet drill in { type filter hook input priority 0 ; }")
    _run("nft", f"add rule inet drill in tcp dport {port} tcp flags syn drop")
    try:
        yield
    finally:
        _run("nft", "delete", "table", "inet", "drill")


def answer_at(address: str) -> None:
    """From now on the own network has this address, too."""
    _run("ip", "addr", "add", f"{address}/32", "dev", "lo")


class NameServer(asyncio.DatagramProtocol):
    """Answers for every name on 127.0.0.1:53 with `addresses`; with none of them, that there is no such name."""

    def __init__(self) -> None:
        self.addresses: list[str] = ["127.0.0.1"]
        self.is_failing = False
        """SERVFAIL."""
        self.after_s = 0.0
        """So much later."""
        self.asked = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 53))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        asyncio.get_running_loop().call_later(self.after_s, self._answer, data, addr)

    def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5  # the name, its type and its class
        (kind,) = struct.unpack(">H", data[end - 4 : end - 2])
        rows = [] if self.is_failing or kind != 1 else self.addresses
        state = 2 if self.is_failing else 0 if self.addresses else 3
        head = data[:2] + struct.pack(">HHHHH", 0x8180 | state, 1, len(rows), 0, 0)
        told = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(row) for row in rows]
        if not self.transport.is_closing():
            self.transport.sendto(head + data[12:end] + b"".join(told), addr)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=10)
