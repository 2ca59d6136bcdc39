"""Generated reference pages are what their generators print today."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("tool", "page"),
    [
        ("settings-table", "settings.md"),
        ("catalogue-reference", "catalogue.md"),
        ("providers-reference", "providers.md"),
    ],
)
def test_a_generated_page_is_what_its_generator_prints(tool: str, page: str) -> None:
    printed = subprocess.run([sys.executable, ROOT / "tools" / tool], capture_output=True, text=True, check=True).stdout

    written = (ROOT / "docs" / "reference" / page).read_text()

    assert written == printed, f"run tools/{tool} > docs/reference/{page}"


def test_no_lock_names_a_registry() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        assert "://" not in lock.read_text(), lock.name


def test_the_runtime_stays_small() -> None:
    direct = [
        line
        for line in (ROOT / "pyproject.toml")
        .read_text()
        .split("dependencies = [", 1)[1]
        .split("]\n", 1)[0]
        .splitlines()
        if line.strip()
    ]
    pinned = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]

    assert len(direct) <= 12
    assert len(pinned) <= 36
