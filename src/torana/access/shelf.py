"""What the workers of one server tell each other about issuers' keys, so that together they ask as often as one.

Files in the workers' own directory. Times are of the monotonic clock, which all processes of a machine share.
"""

import fcntl
import hashlib
import math
import os
import struct
from pathlib import Path

import msgspec


class Shelved(msgspec.Struct, frozen=True):
    """An issuer's answer, as one worker has got it."""

    issuer: str
    keys: list[msgspec.Raw]
    fetched_at: float


class Shelf:
    """One directory's answers and questions, by the issuer's base URL."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[str, tuple[int, int]] = {}
        """Base URL → which file was read last."""

    def claim(self, base_url: str, now: float, every_s: float) -> float | None:
        """None where nobody has asked this issuer for `every_s`, so that the caller may; else when that was."""
        file = os.open(self._path(base_url, "asked"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raw = os.pread(file, 8, 0)
            asked_at: float = struct.unpack("d", raw)[0] if len(raw) == 8 else -math.inf
            if now - asked_at < every_s:
                return asked_at
            os.pwrite(file, struct.pack("d", now), 0)
        except BlockingIOError:
            return now  # another worker claims it in this very moment
        finally:
            os.close(file)  # and with it the lock
        return None

    def put(self, base_url: str, answer: Shelved) -> None:
        """For the others; a newer answer replaces it whole."""
        path = self._path(base_url, "keys")
        fresh = path.with_suffix(f".{os.getpid()}")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(file, "wb") as writer:
            writer.write(msgspec.json.encode(answer))
        fresh.replace(path)

    def take(self, base_url: str) -> Shelved | None:
        """The newest answer, where it has not been taken before."""
        try:
            file = os.open(self._path(base_url, "keys"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        with os.fdopen(file, "rb") as reader:
            found = os.fstat(file)
            which = (found.st_ino, found.st_mtime_ns)
            # The directory may be one where others write too; keys come from ourselves alone.
            if found.st_uid != os.geteuid() or self._seen.get(base_url) == which:
                return None
            self._seen[base_url] = which
            try:
                return msgspec.json.decode(reader.read(), type=Shelved)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return None

    def _path(self, base_url: str, what: str) -> Path:
        return self._directory / f"issuer-{what}-{hashlib.sha256(base_url.encode()).hexdigest()[:16]}"
