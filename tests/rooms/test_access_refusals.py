"""The catalogue of refusal codes: complete, plainly worded, and covering what is raised."""

import re
from pathlib import Path
from typing import get_args

import pytest

import torana
from torana import errors
from torana.errors import Layer, ProviderError
from torana.refusals import CODES

RAISED = re.compile(
    r"Refusal\(\s*\d{3},\s*\"([a-z0-9_]+)\"|BadToken\(\s*\"([a-z0-9_]+)\"|_unauthenticated\(\s*\"([a-z_]+)\""
)


@pytest.mark.parametrize("name", CODES)
def test_every_code_says_which_layer_what_it_means_and_what_to_do(name: str) -> None:
    row = CODES[name]

    assert re.fullmatch(r"[a-z0-9_]+", name)
    assert row.layer in get_args(Layer)
    for text in (row.meaning, row.remedy):
        assert text.endswith(".")
        assert len(text) < 160


def test_every_provider_error_has_its_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProviderError)]

    assert {kind.code for kind in kinds} <= CODES.keys()


def test_every_code_that_only_usage_records_hold_has_its_page_too() -> None:
    sources = Path(torana.__file__).parent.rglob("*.py")
    held = {name for path in sources for name in re.findall(r'error_code="([a-z_]+)"', path.read_text())}

    assert held
    assert held <= CODES.keys()


def test_every_code_that_access_raises_is_in_the_catalogue() -> None:
    sources = (Path(torana.__file__).parent / "access").glob("*.py")
    raised = {name for path in sources for names in RAISED.findall(path.read_text()) for name in names if name}

    assert len(raised) > 20
    assert raised <= CODES.keys()
