"""What a base install brings in stays as small as promised (`tools/dependencies.py`, part of `make lint`)."""

from pathlib import Path

import pytest
from tools import dependencies

HASH = "--hash=sha256:" + "0" * 64


def test_the_locks_and_the_environment_keep_the_promise(capsys: pytest.CaptureFixture[str]) -> None:
    assert dependencies.main() == 0

    told = capsys.readouterr().out.splitlines()
    assert "pyjwt" in told
    assert told[told.index("pyjwt") + 1] == "  cryptography"


@pytest.mark.parametrize(
    ("lock", "wrong"),
    [
        (f"one==1.0 \\\n    {HASH}\ntwo==2\n", "two==2 has no hash"),
        (f"one>=1.0 \\\n    {HASH}\n", "one>=1.0 is not pinned"),
        (f"--index-url https://example.org\none==1 \\\n    {HASH}\n", "names an index or an address"),
        (f"one @ https://example.org/one.whl {HASH}\n", "names an index or an address"),
    ],
)
def test_a_lock_that_is_open_to_others_is_refused(tmp_path: Path, lock: str, wrong: str) -> None:
    (tmp_path / "a.lock").write_text(lock)

    _, found = dependencies.read_lock(tmp_path / "a.lock")

    assert f"a.lock: {wrong}" in found


@pytest.mark.parametrize(("direct", "in_all"), [(11, 36), (12, 20)])
def test_growth_beyond_the_promise_fails(capsys: pytest.CaptureFixture[str], direct: int, in_all: int) -> None:
    assert dependencies.main(direct, in_all) == 1
    assert "has grown" in capsys.readouterr().err
