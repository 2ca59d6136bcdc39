"""Version constraints: what clients send, and Poetry's own parser as the judge."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from poetry.core.constraints.version import Version as PoetryVersion
from poetry.core.constraints.version import parse_constraint

from torana.errors import Invalid
from torana.prompts.versions import pick, read_constraint, read_version, read_versions

SHIPPED = ["1.0.0", "1.2.0", "2.0.0", "2.1.0", "3.0.0"]


@pytest.mark.parametrize(
    ("constraint", "available", "picked"),
    [
        ("^1.0.0", SHIPPED, "1.2.0"),
        ("1.0.0", SHIPPED, "1.0.0"),
        ("=1.0.0", SHIPPED, "1.0.0"),
        ("1.0", SHIPPED, "1.0.0"),
        ("1.2.0", SHIPPED, "1.2.0"),
        ("^2.0.1", SHIPPED, "2.1.0"),
        ("2.0.0", SHIPPED, "2.0.0"),
        ("*", SHIPPED, "3.0.0"),
        (">=1,<3", SHIPPED, "2.1.0"),
        (">= 1.0 < 2", SHIPPED, "1.2.0"),
        ("~1.0", SHIPPED, "1.0.0"),
        ("2.*", SHIPPED, "2.1.0"),
        ("1.0.0 || 2.0.0", SHIPPED, "2.0.0"),
        ("!=3.0.0", SHIPPED, "2.1.0"),
        # Only stable versions for ranges, pre-releases for pins.
        ("^1.0.0", ["1.0.0", "1.1.0-dev"], "1.0.0"),
        ("^1.0.0-dev", ["1.0.0-dev", "1.0.0-rc.1"], None),
        ("1.1.0-dev", ["1.0.0", "1.1.0-dev"], "1.1.0-dev"),
        ("1.1.0.dev0", ["1.0.0", "1.1.0-dev"], "1.1.0-dev"),
        ("^4", SHIPPED, None),
        ("^1.0.0", [], None),
        # Pins without a file.
        ("1.0.1-dev", SHIPPED, "1.0.0"),
        ("3.0.2-dev", SHIPPED, "3.0.0"),
        ("1.9.0", SHIPPED, "1.2.0"),
        ("1.1.0", SHIPPED, "1.2.0"),
        ("1.2.0-rc.1", SHIPPED, "1.2.0"),
        ("9.0.0", SHIPPED, "3.0.0"),
        ("1.0.0", ["2.0.0-dev", "1.1.0-rc1"], None),
    ],
)
def test_a_constraint_picks_the_version_that_the_contract_names(
    constraint: str, available: list[str], picked: str | None
) -> None:
    assert pick(read_constraint(constraint), read_versions(available)) == picked


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "^",
        "latest",
        "^1.*",
        "~1.*",
        "1.0 - 2.0",
        "===1",
        "1!2.0",
        "1.0+local",
        "1,,2",
        ",",
        "||",
        "^1 ||",
        "1." * 9,
        "0" * 201,
        "١.٠.٠",
    ],
)
def test_what_is_no_constraint_is_refused_by_the_contracts_text(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_constraint(text)

    assert refused.value.members == {
        "detail": [{"loc": ["body", "prompt_version"], "msg": "Invalid version constraint", "type": "value_error"}]
    }


def test_a_constraint_of_just_200_letters_is_read() -> None:
    assert read_constraint(("1||" * 66) + "1 ").pin is None


numbers = st.integers(0, 4)
releases = st.lists(numbers, min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
endings = st.sampled_from(["", "", "", "-dev", "-rc.1", "-alpha", "b2", ".dev3", "-beta.2.dev1", "rc"])
versions = st.builds("{}{}".format, releases, endings)
clauses = st.one_of(
    st.builds(
        "{}{}".format,
        st.sampled_from(["^", "~", "~=", "", "=", "==", "!=", ">", ">=", "<", "<=", "^ ", ">= "]),
        versions,
    ),
    st.builds(
        "{}{}.*".format,
        st.sampled_from(["", "==", "!="]),
        st.lists(numbers, min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts))),
    ),
    st.sampled_from(["*", "*.*"]),
)
constraints = st.builds(
    lambda groups, comma: " || ".join(comma.join(group) for group in groups),
    st.lists(st.lists(clauses, min_size=1, max_size=2), min_size=1, max_size=2),
    st.sampled_from([",", " ", ", "]),
)


@settings(max_examples=400)
@given(constraints, releases)
def test_stable_versions_are_allowed_as_poetry_allows_them(constraint: str, version: str) -> None:
    assert read_constraint(constraint).allows(read_version(version)) == parse_constraint(constraint).allows(
        PoetryVersion.parse(version)
    )


@given(versions, versions)
def test_versions_are_ordered_as_poetry_orders_them(one: str, other: str) -> None:
    assert (read_version(one) < read_version(other)) == (PoetryVersion.parse(one) < PoetryVersion.parse(other))


@given(st.text(max_size=30))
def test_any_text_is_either_a_constraint_or_refused(text: str) -> None:
    try:
        constraint = read_constraint(text)
    except Invalid:
        return
    pick(constraint, read_versions(SHIPPED))
