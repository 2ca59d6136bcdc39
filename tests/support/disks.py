"""File systems that run full, of the test's own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_file_system(place: Path, options: str) -> Iterator[Path]:
    """`options`: of tmpfs. Skips the test where nothing can be mounted."""
    if os.geteuid():
        pytest.skip("mounting takes root")
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def grow(place: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


def fill(place: Path, how: str) -> Path:
    rest = place / "rest"
    rest.mkdir()
    try:
        if how == "space":
            with (rest / "zeros").open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
        for number in range(1000):
            (rest / str(number)).touch()
    except OSError:
        return rest
    raise AssertionError("it did not run full")
