"""`torana limits simulate`: what a traffic profile would meet."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from torana.cli import main

LIMITS = """
- name: per_user
  limit: 10 per minute per user
- name: budget
  limit: 1 USD per hour per instance
- name: streams
  limit: 3 concurrent streams per instance
  match: {unit_primitives: [duo_chat]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # a `.env` of the checkout must not be read
    (tmp_path / "limits.yml").write_text(LIMITS)
    return tmp_path


def simulate(profile: str, *args: str) -> Result:
    env = {"AIGW_CATALOG": None, "AIGW_ENVIRONMENT": None}
    return CliRunner().invoke(main, ["limits", "simulate", "-f", "-", *args], input=profile, env=env)


def outcome(profile: str, *args: str) -> dict[str, Any]:
    result = simulate(profile, "--json", *args)
    assert result.exit_code == 0, result.output
    found: dict[str, Any]
    (found,) = json.loads(result.stdout)
    return found


def test_without_a_limit_everything_passes() -> None:
    found = outcome("- {name: all, calls: 60 per minute}", "--for", "10m")

    assert (found["sent"], found["passed"], found["refused_by"], found["least_left"]) == (600, 600, {}, {})
    assert found["first_refused_s"] is None


def test_of_a_users_calls_as_many_pass_as_the_limit_says(folder: Path) -> None:
    found = outcome("- {name: one, calls: 60 per minute}", "--for", "10m", "--catalog", str(folder))

    assert (found["passed"], found["refused_by"]) == (100, {"per_user": 500})
    assert (found["first_refused_s"], found["longest_retry_after_s"]) == (10.0, 50)


@pytest.mark.parametrize("amount", [23, 60, 125, 1981])
@pytest.mark.parametrize("burst", [0, 1])
def test_a_flow_that_keeps_to_its_limit_meets_no_refusal(folder: Path, amount: int, burst: int) -> None:
    (folder / "limits.yml").write_text(f"- {{name: same, limit: {amount} per minute, burst: {burst}}}")

    found = outcome(f"- {{name: even, calls: {amount} per minute}}", "--for", "7m", "--catalog", str(folder))

    assert (found["sent"], found["refused_by"]) == (7 * amount, {})


def test_users_have_a_limit_each(folder: Path) -> None:
    found = outcome("- {name: six, calls: 60 per minute, users: 6}", "--for", "10m", "--catalog", str(folder))

    assert (found["passed"], found["least_left"]["per_user"]) == (600, 0)


def test_money_is_reserved_by_what_is_allowed_and_settled_by_what_was_used(folder: Path) -> None:
    # 800 x 1 $ + 60 x 5 $ a million: 0.0011 $ a call; 0.00144 $ are reserved. 908 calls leave 0.0012 $.
    profile = """
- name: editors
  calls: 120 per minute
  users: 20
  model: claude_haiku_4_5
  input_tokens: 800
  output_tokens: 60
  max_tokens: 128
  seconds: 0.1
"""
    found = outcome(profile, "--for", "10m", "--catalog", str(folder))

    assert (found["passed"], set(found["refused_by"])) == (908, {"budget"})


@pytest.mark.parametrize(("size", "passed"), [("body_bytes: 10000", 100), ("input_tokens: 2000", 142)])
def test_bodies_are_as_long_as_the_profile_or_its_tokens_say(folder: Path, size: str, passed: int) -> None:
    (folder / "limits.yml").write_text("- {name: volume, limit: 1 MB per hour per instance}")

    found = outcome(f"- {{name: long, calls: 60 per minute, {size}}}", "--for", "10m", "--catalog", str(folder))

    assert (found["passed"], found["refused_by"]) == (passed, {"volume": 600 - passed})


def test_a_stream_holds_its_place_until_it_ends(folder: Path) -> None:
    profile = "- {name: chat, calls: 60 per minute, users: 60, unit_primitive: duo_chat, seconds: 6}"

    found = outcome(profile, "--for", "1m", "--catalog", str(folder))

    assert (found["passed"], found["refused_by"]) == (30, {"streams": 30})


def test_the_table_names_what_refuses(folder: Path) -> None:
    shown = simulate("- {name: one, calls: 60 per minute}", "--catalog", str(folder), "--for", "1m").stdout

    assert "60 sent       10 passed       50 refused" in shown
    assert "refused by per_user (50); first after 10 s" in shown


def test_the_table_says_how_much_of_each_limit_is_left(folder: Path) -> None:
    profile = "- {name: one, calls: 6 per minute, model: claude_haiku_4_5, max_tokens: 200, seconds: 0}"

    shown = simulate(profile, "--catalog", str(folder), "--for", "1m").stdout

    assert "least left: 4 of per_user, 0.988 of budget\n" in shown  # 1000 x 1 $ + 200 x 5 $ a million, six times


def test_limits_on_money_that_cannot_count_a_flow_are_named(folder: Path) -> None:
    profile = "- {name: one, calls: 6 per minute}"

    shown = simulate(profile, "--catalog", str(folder), "--for", "1m").stdout

    assert "no price is known, so that it passes uncounted: budget" in shown
    assert outcome(profile, "--catalog", str(folder), "--for", "1m")["uncounted"] == ["budget"]


def test_more_users_than_a_server_can_count_are_told(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "limits.yml").write_text("- {name: daily, limit: 1 per day per user}")

    result = simulate("- {name: all, calls: 100000 per minute, users: 100000}", "--catalog", str(folder), "--for", "1m")

    assert "the table of 65,536 counts was full" in result.stderr
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("profile", "wrong"),
    [
        ("- {name: x, calls: many}", "`many` is no limit"),
        ("- {name: x, calls: 5 USD per day}", "`calls` is no rate"),
        ("- {name: x, calls: 5 per day per user}", "`calls` is no rate"),
        ("- {name: x, calls: 5 concurrent streams}", "`calls` is no rate"),
        ("- {name: x, calls: 5 per day, users: 0}", "`users` is too small"),
        ("- {name: x, calls: 5 per day, seconds: -1}", "`seconds` is too small"),
        ("- {name: x, calls: 5 per day, seconds: 1.0e+300}", "`seconds` is too large"),
        ("- {name: x, calls: 5 per day, input_tokens: 10000000000}", "`input_tokens` is too large"),
        ("- {name: x, calls: 5 per day, model: nope}", "unknown model `nope`"),
        ("- {name: x, calls: 5 per day, unit_primitive: nope}", "unknown unit primitive `nope`"),
        ("- {name: x, call: 5 per day}", "did you mean `calls`"),
        ("name: [", "expected a value, or the closing bracket"),
        ("- {name: x, calls: 1000000 per second}", "calls are too many"),
    ],
)
def test_a_bad_profile_is_exit_2_and_says_what_is_wrong(profile: str, wrong: str) -> None:
    result = simulate(profile)

    assert result.exit_code == 2
    assert wrong in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("span", ["0h", "10", "1y", "36501d"])
def test_a_time_that_no_clock_goes_through_is_exit_2(span: str) -> None:
    result = simulate("- {name: x, calls: 1 per month}", "--for", span)

    assert (result.exit_code, "is no time" in result.stderr) == (2, True)


def test_a_hundred_years_are_gone_through(folder: Path) -> None:
    (folder / "limits.yml").write_text("- {name: monthly, limit: 2 per month}\n- {name: hourly, limit: 1 per hour}")

    found = outcome("- {name: x, calls: 1 per month}", "--for", "36500d", "--catalog", str(folder))

    assert (found["sent"], found["refused"]) == (1217, 0)


def test_a_profile_that_cannot_be_read_is_exit_2() -> None:
    assert CliRunner().invoke(main, ["limits", "simulate", "-f", "/no/such/file"]).exit_code == 2
