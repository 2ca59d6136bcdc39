"""The usage-quota gate: contract 13, checklist J1."""

import asyncio
import tracemalloc
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support.access import PORTAL, FakeFetcher, headers_for
from tests.support.clock import HandClock

from torana.access.quota import QuotaGate
from torana.auth_settings import AuthSettings
from torana.caller import DEBUG_CALLER, Caller
from torana.errors import Refusal
from torana.settings import Secret, Settings
from torana.transport import Fetched

RESOLVE = f"{PORTAL}/api/v1/consumers/resolve"
CALLER = Caller(
    realm="self-managed", claims={"gitlab_realm": "self-managed", "gitlab_instance_uid": "uid-1"}, scopes=frozenset()
)


class Meter:
    """Keeps what the metrics would count."""

    def __init__(self) -> None:
        self.results: list[tuple[str, str]] = []
        self.outcomes: list[tuple[str, int, str]] = []

    def checked(self, result: str, realm: str) -> None:
        self.results.append((result, realm))

    def asked(self, outcome: str, status: int, realm: str, seconds: float) -> None:
        self.outcomes.append((outcome, status, realm))


class Portal:
    """A gate, and the portal behind it."""

    def __init__(self, **settings: Any) -> None:
        self.fetcher = FakeFetcher()
        self.fetcher.drop_query = True
        self.clock = HandClock()
        self.meter = Meter()
        auth = {"customer_portal_url": f"{PORTAL}/", "portal_user": "me@x", "portal_token": Secret("s3cret")} | settings
        self.gate = QuotaGate(
            Settings(environment="production", auth=AuthSettings(**auth)),
            self.fetcher,
            self.clock,
            meter=self.meter,
            draw=lambda: self.drawn,
        )
        self.drawn = 0.5
        self.answer(200)

    def answer(self, status: int, cache_control: str | None = None) -> None:
        headers = {} if cache_control is None else {"cache-control": cache_control}
        self.fetcher.answers[RESOLVE] = Fetched(status=status, headers=headers, body=b"")

    async def check(
        self, caller: Caller = CALLER, event: str = "code_completions", model: str = "", **headers: Any
    ) -> int:
        """The status the caller would see; 200 where the gate lets the call pass."""
        try:
            await self.gate.check(caller, headers_for(**headers), event, model, "request-1")
        except Refusal as refusal:
            return refusal.status
        return 200

    @property
    def asked(self) -> int:
        return len(self.fetcher.requests)


@pytest.fixture
def portal() -> Portal:
    return Portal()


@pytest.mark.parametrize(
    ("answered", "status", "code", "error", "error_code"),
    [
        (402, 402, "insufficient_credits", "insufficient_credits", "USAGE_QUOTA_EXCEEDED"),
        (403, 403, "not_entitled", "not_entitled", "USAGE_QUOTA_NOT_ENTITLED"),
        (404, 403, "quota_unavailable", "not_entitled", "USAGE_QUOTA_NOT_ENTITLED"),
        (302, 403, "quota_unavailable", "not_entitled", "USAGE_QUOTA_NOT_ENTITLED"),
        (500, 403, "quota_unavailable", "not_entitled", "USAGE_QUOTA_NOT_ENTITLED"),
        (None, 403, "quota_unavailable", "not_entitled", "USAGE_QUOTA_NOT_ENTITLED"),
    ],
)
async def test_a_no_of_the_portal_and_its_silence_both_refuse(
    portal: Portal, answered: int | None, status: int, code: str, error: str, error_code: str
) -> None:
    if answered is None:
        portal.fetcher.answers.clear()
    else:
        portal.answer(answered)

    with pytest.raises(Refusal) as caught:
        await portal.gate.check(CALLER, headers_for(), "code_completions", "", "r")

    assert (caught.value.status, caught.value.code) == (status, code)
    assert (caught.value.members["error"], caught.value.members["error_code"]) == (error, error_code)
    assert caught.value.members["message"]


async def test_what_is_remembered_is_small_however_long_the_ids_are(portal: Portal) -> None:
    await portal.check()
    tracemalloc.start()
    try:
        for number in range(100):
            await portal.check(x_gitlab_global_user_id=f"{number}{'x' * 30_000}")
            portal.fetcher.requests.clear()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept_bytes < 500_000


async def test_the_question_names_consumer_feature_and_request(portal: Portal) -> None:
    sent = {
        "x_gitlab_host_name": "gitlab.example",
        "x_gitlab_version": "18.4.0",
        "x_gitlab_deployment_type": "self-managed",
        "x_gitlab_feature_enablement_type": "add_on",
        "x_gitlab_user_id": "12",
        "x_gitlab_project_id": "null",
        "x_gitlab_namespace_id": "34",
        "x_gitlab_organization_id": "",
    }

    assert await portal.check(model="gpt & co", **sent) == 200

    [(method, url)] = portal.fetcher.requests
    assert (method, url.partition("?")[0]) == ("HEAD", RESOLVE)
    assert portal.fetcher.headers[0] == {"x-admin-email": "me@x", "x-admin-token": "s3cret"}
    assert parse_qs(urlsplit(url).query, keep_blank_values=True) == {
        "event_type": ["code_completions"],
        "feature_qualified_name": ["code_suggestions"],
        "feature_ai_catalog_item": [""],
        "model_id": ["gpt & co"],
        "realm": ["self-managed"],
        "unique_instance_id": ["uid-1"],
        "instance_id": ["instance-1"],
        "host_name": ["gitlab.example"],
        "instance_version": ["18.4.0"],
        "deployment_type": ["self-managed"],
        "feature_enablement_type": ["add_on"],
        "user_id": ["12"],
        "global_user_id": ["user-1"],
        "namespace_id": ["34"],
        "environment": ["production"],
        "source": ["torana"],
        "correlation_id": ["request-1"],
    }


@pytest.mark.parametrize(
    ("event", "feature"),
    [
        ("code_generations", "code_suggestions"),
        ("amazon_q_integration", "amazon_q_integration"),
        ("ai_gateway_proxy_use", "ai_gateway_proxy_use"),
    ],
)
async def test_each_event_belongs_to_its_feature(portal: Portal, event: str, feature: str) -> None:
    await portal.check(event=event)

    assert f"feature_qualified_name={feature}&" in portal.fetcher.requests[0][1] + "&"


@pytest.mark.parametrize(
    "settings", [{"portal_user": ""}, {"portal_token": Secret()}, {"customer_portal_url": ""}]
)  # fmt: skip
async def test_the_gate_is_off_without_both_credentials(settings: dict[str, Any]) -> None:
    portal = Portal(**settings)
    portal.answer(402)

    assert not portal.gate.is_on
    assert await portal.check() == 200
    assert portal.asked == 0


@pytest.mark.parametrize(
    ("caller", "asked"),
    [
        (Caller(claims={"skip_usage_cutoff": True}), 0),
        (Caller(claims={"skip_usage_cutoff": "true"}), 1),
        (Caller(claims={"skip_usage_cutoff": 1}), 1),
        (Caller(claims={"skip_usage_cutoff": False}), 1),
        (DEBUG_CALLER, 0),
    ],
)
async def test_the_skip_claim_is_exactly_true(portal: Portal, caller: Caller, asked: int) -> None:
    await portal.check(caller)

    assert portal.asked == asked


@pytest.mark.parametrize("status", [200, 402, 403])
@pytest.mark.parametrize(
    ("cache_control", "drawn", "ttl_s"),
    [
        (None, 0.5, 3600),
        (None, 0.0, 3240),
        (None, 1.0, 3960),
        ("max-age=120", 0.5, 120),
        ("private, Max-Age=120", 1.0, 132),
        ("private,max-age=120", 0.0, 108),
        ("s-maxage=5", 0.5, 3600),
        ("no-cache", 0.5, 3600),
        ("max-age=x", 0.5, 3600),
    ],
)
async def test_an_answer_is_remembered_as_long_as_it_says_give_or_take(
    portal: Portal, status: int, cache_control: str | None, drawn: float, ttl_s: float
) -> None:
    portal.answer(status, cache_control)
    portal.drawn = drawn
    await portal.check()

    portal.clock.advance(ttl_s - 1)
    assert await portal.check() == status
    assert portal.asked == 1
    portal.clock.advance(1)
    await portal.check()

    assert portal.asked == 2


async def test_a_failure_is_remembered_for_five_seconds_only(portal: Portal) -> None:
    portal.answer(500, "max-age=3600")
    assert await portal.check() == 403
    portal.answer(200)
    portal.clock.advance(4.9)
    assert await portal.check() == 403

    portal.clock.advance(0.1)

    assert await portal.check() == 200


@pytest.mark.parametrize(
    ("changes", "is_another"),
    [
        ({}, False),
        ({"x_gitlab_global_user_id": "user-2"}, True),
        ({"x_gitlab_user_id": "2"}, True),
        ({"x_gitlab_root_namespace_id": "2"}, True),
        ({"x_gitlab_feature_enablement_type": "beta"}, True),
        ({"model": "other"}, True),
        ({"event": "code_generations"}, True),
        ({"caller": Caller(claims={"gitlab_realm": "saas"})}, True),
        ({"x_gitlab_project_id": "2"}, False),
        ({"x_gitlab_version": "19.0"}, False),
    ],
)
async def test_one_consumers_answer_is_never_anothers(
    portal: Portal, changes: dict[str, Any], is_another: bool
) -> None:
    await portal.check()

    await portal.check(**changes)

    assert portal.asked == 1 + is_another


async def test_identical_questions_at_once_are_asked_once(portal: Portal) -> None:
    portal.fetcher.held = asyncio.Event()
    waiting = [asyncio.create_task(portal.check()) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    waiting[0].cancel()
    portal.fetcher.held.set()

    assert await asyncio.gather(*waiting[1:]) == [200] * 49
    assert portal.asked == 1


async def test_closing_ends_the_questions_that_run(portal: Portal) -> None:
    portal.fetcher.held = asyncio.Event()
    waiting = asyncio.create_task(portal.check())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    await portal.gate.aclose()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_every_check_and_every_question_is_counted(portal: Portal) -> None:
    await portal.check()
    await portal.check()
    portal.answer(402)
    await portal.check(model="b")
    portal.fetcher.answers.clear()
    await portal.check(model="c")

    assert [result for result, _ in portal.meter.results] == ["allow", "allow", "deny", "error"]
    assert portal.meter.outcomes == [
        ("answered", 200, "self-managed"),
        ("answered", 402, "self-managed"),
        ("error", 0, "self-managed"),
    ]
