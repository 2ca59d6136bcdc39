"""A real PostgreSQL of the test's own, where the machine has its programs."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("initdb", "postgres", "pg_ctl")


def is_here() -> bool:
    return all(shutil.which(name) for name in PROGRAMS)


@contextmanager
def running_postgres(port: int) -> Iterator[str]:
    """Its address. It runs as somebody else where the tests run as root, which it refuses."""
    # Not below pytest's own folder, into which nobody else may look.
    folder = Path(tempfile.mkdtemp(prefix="torana-postgres-"))
    user: list[str] = []
    if not os.geteuid():
        shutil.chown(folder, "nobody")
        user = ["setpriv", "--reuid", "nobody", "--clear-groups"]
    data = str(folder / "data")
    subprocess.run(
        [*user, "initdb", "-D", data, "-A", "trust", "-U", "torana", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [*user, "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-o", options, "-l", str(folder / "log"), "start"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield f"postgresql://torana@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder)
