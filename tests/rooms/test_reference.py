"""Generated reference pages are what their generators print today."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from torana.catalog.model_records import ModelsFile
from torana.catalog.records import PromptFile, PromptParams
from torana.prompts.filters import FILTERS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("tool", "page"),
    [
        ("settings-table", "settings.md"),
        ("catalogue-reference", "catalogue.md"),
        ("providers-reference", "providers.md"),
        ("metrics-table", "metrics.md"),
    ],
)
def test_a_generated_page_is_what_its_generator_prints(tool: str, page: str) -> None:
    printed = subprocess.run([sys.executable, ROOT / "tools" / tool], capture_output=True, text=True, check=True).stdout

    written = (ROOT / "docs" / "reference" / page).read_text()

    assert written == printed, f"run tools/{tool} > docs/reference/{page}"


def test_every_list_of_the_catalogue_is_in_the_reference() -> None:
    written = (ROOT / "docs" / "reference" / "catalogue.md").read_text()

    for field in msgspec.structs.fields(ModelsFile):
        (record, _) = get_args(field.type)
        assert f"\n### {record.__name__}\n" in written, f"name {record.__name__} in tools/catalogue-reference"


def test_the_page_of_prompt_files_names_all_that_they_may_hold() -> None:
    written = (ROOT / "docs" / "reference" / "prompt-files.md").read_text()

    members = {*PromptFile.__struct_fields__} - {"model", "params"}
    members |= {f"params.{name}" for name in PromptParams.__struct_fields__} | {"model.params"}
    for name in (*members, *FILTERS):
        is_named = f"`{name}`" in written or f"`{name}(" in written
        assert is_named, f"{name} is not in docs/reference/prompt-files.md"


def test_the_house_on_the_page_is_the_one_that_stands() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"[a-z_*]+\.py", page[page.index("```") : page.index("Still to come")])
    house = ROOT / "src" / "torana"

    modules = {path.name for path in (*house.glob("*.py"), *house.glob("api/*.py"))} - {"__init__.py"}
    unnamed = {module for module in modules if not any(fnmatch(module, name) for name in named)}

    assert unnamed == set(), "say in docs/architecture.md what they are for"
    assert {name for name in named if not list(house.rglob(name))} == set(), "they are gone"


def test_every_section_of_the_contract_that_is_referred_to_is_on_its_page() -> None:
    page = (ROOT / "docs" / "reference" / "contract.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    sections = {number for row in rows for number in re.split(", ?", row[0])}
    code = [path for room in ("src", "tests", "docs") for path in (ROOT / room).rglob("*") if path.is_file()]

    referred = {
        number
        for path in code
        if path.suffix in (".py", ".yml", ".md")
        for number in re.findall(r"contract (\d+(?:\.\d+)?)", path.read_text())
    }
    named = [
        name for row in rows if len(row) == 4 for name in re.findall(r"`([\w/]+(?:\.(?:py|yml)|/))`", row[2] + row[3])
    ]

    assert referred <= sections
    assert {
        name for name in named if not any((ROOT / room / name).exists() for room in ("src/torana", "tests/promises"))
    } == set()


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
