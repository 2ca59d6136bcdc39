"""Metrics: names and labels of contract 15, bounded, cheap, and summed over workers."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.support.clock import HandClock
from tests.support.disks import fill, small_file_system

from torana.chat import Usage
from torana.errors import (
    ProviderBroke,
    ProviderError,
    ProviderRefused,
    ProviderTimedOut,
    ProviderUnreachable,
    provider_refused,
)
from torana.telemetry.error_types import error_type_of
from torana.telemetry.families import FAMILIES, REQUEST_SECONDS, USAGE_DELIVERED
from torana.telemetry.loop_watch import watch_loop
from torana.telemetry.metrics import Known, Metrics
from torana.telemetry.shards import MAX_SERIES, Shards

KNOWN = Known(
    engines=frozenset({"anthropic"}),
    models=frozenset({"claude-sonnet"}),
    unit_primitives=frozenset({"explain_code"}),
    feature_categories=frozenset({"duo_chat"}),
    languages=frozenset({"python"}),
    extensions=frozenset({"py"}),
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(KNOWN)


def samples(metrics: Metrics, family: str = "") -> dict[str, float]:
    """`name{label="value",…}` → value, as a scraper reads it; only those that begin with `family`."""
    body, _ = metrics.expose()
    found = {}
    for read in text_string_to_metric_families(body.decode()):
        for sample in read.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return {name: value for name, value in found.items() if name.startswith(family)}


def infer(metrics: Metrics, model: str = "claude-sonnet", error: ProviderError | None = None, **more: str) -> None:
    metrics.inference(
        engine="anthropic", model=model, feature_category="duo_chat", unit_primitive="explain_code", is_streamed=True,
        error=error, finish_reason="stop", seconds=0.7, usage=Usage(input_tokens=7, output_tokens=5), **more,
    )  # fmt: skip


def test_a_request_is_counted_and_timed_under_its_handler_and_grouped_status(metrics: Metrics) -> None:
    metrics.request("/v1/code/user_access_token", "POST", 422, 0.7)

    labels = 'handler="/v1/code/user_access_token",method="POST",status="4xx"'
    found = samples(metrics, "http_")
    assert found[f"http_requests_total{{{labels}}}"] == 1
    assert found[f"http_request_duration_seconds_sum{{{labels}}}"] == 0.7
    assert found[f"http_request_duration_seconds_count{{{labels}}}"] == 1
    assert found[f'http_request_duration_seconds_bucket{{{labels},le="0.5"}}'] == 0
    assert found[f'http_request_duration_seconds_bucket{{{labels},le="1.0"}}'] == 1


@given(st.lists(st.floats(0, 100), max_size=30))
def test_a_bucket_holds_everything_up_to_its_bound(durations: list[float]) -> None:
    metrics = Metrics(KNOWN)

    for seconds in [*durations, *REQUEST_SECONDS]:
        metrics.request("/x", "GET", 200, seconds)

    found = samples(metrics, "http_request_duration_seconds_bucket")
    for bound in REQUEST_SECONDS:
        expected = sum(seconds <= bound for seconds in [*durations, *REQUEST_SECONDS])
        assert found[
            f'http_request_duration_seconds_bucket{{handler="/x",method="GET",status="2xx",le="{bound}"}}'
        ] == expected  # fmt: skip


def test_a_model_call_is_counted_with_the_labels_of_the_contract(metrics: Metrics) -> None:
    infer(metrics)

    (name,) = samples(metrics, "model_inferences_total")
    assert name == (
        'model_inferences_total{model_engine="anthropic",model_name="claude-sonnet",error="no",streaming="yes",'
        'feature_category="duo_chat",error_type="none",unit_primitive="explain_code",finish_reason="stop",'
        'client_name="none",client_version="none"}'
    )
    assert set(samples(metrics, "inference_total_tokens_total").values()) == {12}
    assert set(samples(metrics, "inference_input_tokens_total").values()) == {7}
    assert set(samples(metrics, "inference_output_tokens_total").values()) == {5}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (provider_refused(400, "no"), "http_400"),
        (provider_refused(400, "prompt is too long: 9 tokens"), "prompt_too_long"),
        (provider_refused(400, "no", kind="context_length_exceeded"), "prompt_too_long"),
        (provider_refused(413, "no"), "prompt_too_long"),
        (provider_refused(401, "no"), "permission_error"),
        (provider_refused(403, "no"), "permission_error"),
        (provider_refused(529, "no"), "overloaded"),
        (provider_refused(200, "no", kind="overloaded_error"), "overloaded"),
        (provider_refused(503, "no"), "service_unavailable"),
        (provider_refused(429, "no"), "other"),
        (ProviderUnreachable("no"), "connection_error"),
        (ProviderTimedOut("no"), "connection_error"),
        (ProviderBroke("no"), "other"),
        (ProviderRefused(404, "no"), "other"),
    ],
)
def test_a_failed_call_has_one_of_the_contracts_error_types(
    metrics: Metrics, error: ProviderError, expected: str
) -> None:
    infer(metrics, error=error)

    assert error_type_of(error) == expected
    (name,) = samples(metrics, "model_inferences_total")
    assert f'error_type="{expected}"' in name
    assert 'error="yes"' in name


def test_values_that_clients_choose_and_nobody_knows_become_other(metrics: Metrics) -> None:
    metrics.request("/x", "BREW", 200, 0.1)
    infer(metrics, model="my-model", client_name="me", client_version="9")
    metrics.suggestion_language("klingon", "py", "")

    text = metrics.expose()[0].decode()
    assert not any(word in text for word in ("BREW", "my-model", '"me"', '"9"', "klingon"))
    assert samples(metrics, "code_suggestions_prompt_language_total") == {
        'code_suggestions_prompt_language_total{lang="other",extension="py",editor_lang="none"}': 1
    }


@pytest.mark.parametrize("over", [-1, 0, 1, 50])
def test_a_family_has_at_most_200_series(metrics: Metrics, over: int) -> None:
    for number in range(MAX_SERIES + over):
        metrics.request(f"/{number}", "GET", 200, 0.1)

    found = samples(metrics, "http_requests_total")
    assert len(found) == min(MAX_SERIES, MAX_SERIES + over)
    assert sum(found.values()) == MAX_SERIES + over


def test_a_client_that_invents_models_costs_no_memory(metrics: Metrics) -> None:
    for number in range(5_000):
        infer(metrics, model=f"model-{number}")

    assert list(samples(metrics, "model_inferences_total").values()) == [5_000]
    assert len(metrics._inferences) <= 2_000


def test_calls_in_flight_rise_and_fall_whatever_becomes_of_them(metrics: Metrics) -> None:
    name = 'model_inferences_in_flight{model_engine="anthropic",model_name="claude-sonnet"}'

    with metrics.in_flight("anthropic", "claude-sonnet"), metrics.in_flight("anthropic", "claude-sonnet"):
        assert samples(metrics)[name] == 2
    with pytest.raises(ZeroDivisionError), metrics.in_flight("anthropic", "claude-sonnet"):
        _ = 1 / 0

    assert samples(metrics)[name] == 0


def test_configured_limits_are_shown_in_both_shapes() -> None:
    limits = {"anthropic": {"claude": {"concurrency": 5, "input_tokens": 10}}, "openai": {"gpt": 7}}

    found = samples(Metrics(KNOWN, limits), "model_max_") | samples(Metrics(KNOWN, limits), "model_inferences_max")

    assert found == {
        'model_inferences_max_concurrent{model_engine="anthropic",model_name="claude"}': 5,
        'model_inferences_max_concurrent{model_engine="openai",model_name="gpt"}': 7,
        'model_max_input_tokens{model_engine="anthropic",model_name="claude"}': 10,
    }


def test_a_client_cannot_make_a_counter_run_backwards(metrics: Metrics) -> None:
    metrics.suggestion_feedback("anthropic", "claude-sonnet", "python", requests=-3, accepts=2, errors=0)

    labels = 'model_engine="anthropic",model_name="claude-sonnet",lang="python"'
    assert samples(metrics, "code_suggestions_requests_total") == {f"code_suggestions_requests_total{{{labels}}}": 0}
    assert samples(metrics, "code_suggestions_accepts_total") == {f"code_suggestions_accepts_total{{{labels}}}": 2}


def test_a_client_cannot_bring_a_counter_to_its_end(metrics: Metrics) -> None:
    for told in (10**400, 10**308, 10**308):
        metrics.suggestion_feedback("anthropic", "claude-sonnet", "python", requests=told, accepts=0, errors=0)

    labels = 'model_engine="anthropic",model_name="claude-sonnet",lang="python"'
    assert samples(metrics, "code_suggestions_requests_total") == {
        f"code_suggestions_requests_total{{{labels}}}": 3_000_000
    }


def test_every_verb_shows_in_its_family(metrics: Metrics) -> None:
    metrics.suggestion("anthropic", "claude-sonnet", 0.2, 900, 300)
    metrics.suggestion_cleaned(0.001)
    metrics.quota_check("allowed", "saas")
    metrics.portal_request("denied", 402, "on-the-moon", 0.2)
    metrics.portal_request("failed", 0, "saas", 0.2)
    metrics.config_stale(True)
    metrics.lines_dropped(3)
    metrics.threads(4)

    found = samples(metrics)
    model = '{model_engine="anthropic",model_name="claude-sonnet"}'
    assert found[f"code_suggestions_inference_prompt_size_bytes_sum{model}"] == 900
    assert found["code_suggestions_post_processing_duration_seconds_count"] == 1
    assert found['usage_quota_check_total{result="allowed",realm="saas"}'] == 1
    assert found['usage_quota_customersdot_requests_total{outcome="denied",status="402"}'] == 1
    assert found['usage_quota_customersdot_requests_total{outcome="failed",status="none"}'] == 1
    assert found['usage_quota_customersdot_latency_seconds_count{realm="other"}'] == 1
    assert (found["config_stale"], found["log_lines_dropped_total"], found["ai_gateway_threads_count"]) == (1, 3, 4)


def test_every_family_is_told_even_without_a_series(metrics: Metrics) -> None:
    body, content_type = metrics.expose()

    assert content_type.startswith("text/plain; version=0.0.4")
    for family in FAMILIES:
        assert f"# TYPE {family.name} {family.kind}\n".encode() in body


@given(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"])))
def test_any_text_survives_as_a_label(text: str) -> None:
    metrics = Metrics(Known(languages=frozenset({text})))

    metrics.suggestion_language(text, "", "")

    body, _ = metrics.expose()
    (family,) = [
        family
        for family in text_string_to_metric_families(body.decode())
        if family.name == "code_suggestions_prompt_language"
    ]
    assert family.samples[0].labels["lang"] == (text or "none")


def test_any_worker_answers_with_the_sum_of_all(tmp_path: Path) -> None:
    one, two = Metrics(KNOWN, directory=tmp_path), Metrics(KNOWN, directory=tmp_path)
    one.request("/a", "GET", 200, 0.1)
    two.request("/a", "GET", 200, 0.1)
    two.request("/b", "GET", 200, 0.1)
    one.config_stale(True)
    two.config_stale(True)

    in_both = samples(one, "http_requests_total")
    assert in_both == samples(two, "http_requests_total") == {
        'http_requests_total{handler="/a",method="GET",status="2xx"}': 2,
        'http_requests_total{handler="/b",method="GET",status="2xx"}': 1,
    }  # fmt: skip
    assert samples(two)["config_stale"] == 1


def test_a_dead_workers_counters_are_kept_and_its_gauges_are_not(tmp_path: Path) -> None:
    alive, dying = Metrics(KNOWN, directory=tmp_path), Metrics(KNOWN, directory=tmp_path)
    dying.request("/a", "GET", 200, 0.1)
    dying.in_flight("anthropic", "claude-sonnet").__enter__()
    in_flight = 'model_inferences_in_flight{model_engine="anthropic",model_name="claude-sonnet"}'
    requests = 'http_requests_total{handler="/a",method="GET",status="2xx"}'
    assert samples(alive)[in_flight] == 1

    dying.close()

    assert samples(alive)[in_flight] == 0
    assert samples(alive)[requests] == 1

    heir = Metrics(KNOWN, directory=tmp_path)
    heir.request("/a", "GET", 200, 0.1)

    assert samples(alive)[in_flight] == 0
    assert samples(alive)[requests] == samples(heir)[requests] == 2
    assert len(list(tmp_path.glob("worker-*"))) == 2, "the heir took the dead worker's file over"


def test_the_bound_on_series_holds_for_all_workers_together(tmp_path: Path) -> None:
    one, two = Metrics(KNOWN, directory=tmp_path), Metrics(KNOWN, directory=tmp_path)

    for number in range(150):
        one.request(f"/one/{number}", "GET", 200, 0.1)
        two.request(f"/two/{number}", "GET", 200, 0.1)

    found = samples(one, "http_requests_total")
    assert len(found) == MAX_SERIES
    assert sum(found.values()) == 300


async def test_a_late_event_loop_shows_in_the_histogram(metrics: Metrics) -> None:
    clock = HandClock()
    delays: Iterator[float] = iter([0.5, 0.8])

    async def sleep(_: float) -> None:
        try:
            clock.advance(next(delays))
        except StopIteration:
            raise ConnectionAbortedError from None  # ends the watch as a cancellation would

    with pytest.raises(ConnectionAbortedError):
        await watch_loop(metrics, clock, sleep=sleep)

    found = samples(metrics, "event_loop_lag_seconds")
    assert found["event_loop_lag_seconds_count"] == 2
    assert found['event_loop_lag_seconds_bucket{le="0.001"}'] == 1
    assert found["event_loop_lag_seconds_sum"] == pytest.approx(0.3)
    assert samples(metrics)["ai_gateway_threads_count"] >= 1


@pytest.mark.parametrize("_again", range(6))
def test_a_reload_that_adds_series_while_others_are_added_and_shown_spoils_none(tmp_path: Path, _again: int) -> None:
    mine = Shards(tmp_path)
    names = [[f"{thread} {number}" for number in range(60)] for thread in range(3)]

    def add(thread: int) -> None:
        for name in names[thread]:
            mine.values[mine.place(USAGE_DELIVERED, (name,))] += 1
            mine.sum()

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(add, range(3)))

    sibling = Shards(tmp_path)
    told = {labels[0]: numbers for labels, numbers in sibling.sum()[USAGE_DELIVERED]}
    for shards in (mine, sibling):
        shards.close()
    assert told == {name: [1] for name in chain(*names)}


def test_series_whose_names_find_no_space_are_not_counted_and_spoil_no_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_file_system(tmp_path / "small", "size=1m") as place:
        mine, sibling = Shards(place), Shards(place)
        mine.values[mine.place(USAGE_DELIVERED, ("before",))] += 1

        rest = fill(place, "space")
        for number in range(150):
            mine.values[mine.place(USAGE_DELIVERED, (f"meanwhile {number}",))] += 1
        shutil.rmtree(rest)
        mine.values[mine.place(USAGE_DELIVERED, ("after",))] += 1

        told = {labels[0]: numbers for labels, numbers in sibling.sum()[USAGE_DELIVERED]}
        for shards in (mine, sibling):
            shards.close()

    assert (told["before"], told["after"]) == ([1], [1])
    assert 2 < len(told) < 152
    assert all(numbers == [1] for numbers in told.values())
    assert "names cannot be written" in caplog.text
