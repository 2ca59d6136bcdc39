"""Generated reference pages are what their generators print today."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_settings_page_is_generated_from_the_settings() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "tools" / "settings-table"], capture_output=True, text=True, check=True
    ).stdout

    page = (ROOT / "docs" / "reference" / "settings.md").read_text()

    assert page == printed, "run tools/settings-table > docs/reference/settings.md"


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
