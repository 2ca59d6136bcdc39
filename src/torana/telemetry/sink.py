"""Where log lines leave the process, without the request ever waiting for the disk or the reader.

A request appends bytes to a list; a thread writes them, many at once. A reader that stops reading or a
full disk costs lines, which are counted, and nothing else.
"""

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

from torana.errors import BadSetting

_GATHER_S = 0.05
"""How long the thread lets lines gather before it writes: one write for many requests."""


class LogSink:
    """Lines to `fd`, and to a file beside it. Make it after the last fork: threads do not survive one.

    fd           usually stdout
    path         a file that gets the lines as well; empty: none. Raises BadSetting if it cannot be opened
    cap_bytes    lines that would make more wait than this are dropped
    """

    def __init__(self, fd: int = 1, path: str = "", cap_bytes: int = 8 << 20) -> None:
        # The file first: a stdout that nobody reads stops the thread where it stands.
        self._targets = [_Target(fd)]
        self._file: _File | None = None
        if path:
            try:
                self._file = _File(path)
            except OSError as error:
                raise BadSetting(
                    "AIGW_LOGGING__TO_FILE",
                    f"{path!r} cannot be written ({error.strerror})",
                    "expected a file in a folder that is there",
                ) from error
            self._targets.insert(0, self._file)
        self._cap_bytes = cap_bytes
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._lock = threading.RLock()  # a signal handler may log while its own thread is in here
        self._wake = threading.Event()
        self._closing = threading.Event()
        self.dropped_lines = 0
        self.on_drop: Callable[[int], None] | None = None
        """Told about dropped lines; the metrics listen here."""
        self._thread = threading.Thread(target=self._run, name="log-sink", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Take one line, without its newline. Never waits."""
        with self._lock:
            if self._closing.is_set() or self._waiting_bytes + len(line) > self._cap_bytes:
                self._drop(1)
                return
            self._waiting_bytes += len(line)
            self._lines.append(line)
            is_first = len(self._lines) == 1
        if is_first:
            self._wake.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is waiting; give up after `timeout_s` and count the rest as dropped."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        with self._lock:
            self._drop(len(self._lines))
            self._lines = []
        if self._file is not None and not self._thread.is_alive():
            self._file.close()
            self._file = None

    def _drop(self, lines: int) -> None:
        if lines:
            self.dropped_lines += lines
            if self.on_drop is not None:
                self.on_drop(lines)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._closing.wait(_GATHER_S)
            self._wake.clear()
            with self._lock:
                lines, self._lines = self._lines, []
            if lines:
                self._write(lines)
            if self._closing.is_set() and not self._lines:
                return

    def _write(self, lines: list[bytes]) -> None:
        batch = b"\n".join(lines) + b"\n"
        results = [target.write(batch) for target in self._targets]
        with self._lock:
            self._waiting_bytes -= len(batch) - len(lines)
            if not all(results):
                self._drop(len(lines))


class _Target:
    """One descriptor. A batch that broke off in a line is ended before the next one begins."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_torn = False

    def write(self, batch: bytes) -> bool:
        """False if some of it was lost: no space, no reader."""
        whole = b"\n" + batch if self._is_torn else batch
        rest = memoryview(whole)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # Somebody else may have made the shared descriptor non-blocking.
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(1000)
            except OSError:
                if len(rest) < len(whole):  # else it stands as it stood, torn or not
                    self._is_torn = whole[-len(rest) - 1 : -len(rest)] != b"\n"
                return False
        self._is_torn = False
        return True


class _File(_Target):
    """A file by its name: one that was moved away, as those who keep logs small do, is begun anew."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._path = path
        super().__init__(self._open())

    def write(self, batch: bytes) -> bool:
        # Where it cannot be begun anew, what is open is all there is.
        with suppress(OSError):
            if self._is_moved():
                fd = self._open()
                os.close(self._fd)
                self._fd, self._is_torn = fd, False
        return super().write(batch)

    def close(self) -> None:
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _is_moved(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return True
