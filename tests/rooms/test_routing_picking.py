"""The order in which a model's deployments are tried, and why."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torana.caller import DEBUG_CALLER, Caller
from torana.catalog.model_records import ResidencyRecord
from torana.errors import ProviderBroke, ProviderLimited, ProviderRefusedKey
from torana.providers.provider import Deployment
from torana.routing.fences import Fences
from torana.routing.health import ENOUGH, STALE_S, Health, HealthBook
from torana.routing.picking import Picked, Wish, pick
from torana.settings import RoutingSettings

NOW = 500.0


class NoMeter:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def deployment(name: str, **told: Any) -> Deployment:
    return Deployment(provider="p", model=name, label=name, **told)


class Bench:
    def __init__(self, *deployments: Deployment) -> None:
        self.deployments = deployments
        self.book = HealthBook(RoutingSettings(failures_to_rest=1), NoMeter())

    def health(self, name: str) -> Health:
        return self.book.of(next(each for each in self.deployments if each.name == name))

    def measure(self, name: str, seconds: float, now: float = NOW) -> None:
        health = self.health(name)
        for _ in range(ENOUGH):
            health.good(now, health.begin(now), seconds)
            health.end()

    def fail(self, name: str, failure: Any) -> None:
        health = self.health(name)
        health.bad(NOW, health.begin(NOW), failure)
        health.end()

    def pick(self, *, now: float = NOW, key: bytes = b"", **wish: Any) -> Picked:
        return pick(self.deployments, Wish(**{"unit": "i/u", "key": lambda: key, **wish}), self.book, now)

    def order(self, **wish: Any) -> list[str]:
        return [each.deployment.name for each in self.pick(**wish).candidates]

    def firsts(self, times: int = 2000, **wish: Any) -> Counter[str]:
        return Counter(self.order(**wish)[0] for _ in range(times))


def test_orders_come_one_after_another() -> None:
    bench = Bench(deployment("c", order=2), deployment("a"), deployment("b", order=1))

    assert bench.order() == ["a", "b", "c"]
    assert [each.why for each in bench.pick().candidates] == ["order 0", "order 1", "order 2"]


def test_the_own_region_comes_first_within_an_order_and_no_region_is_at_home_everywhere() -> None:
    bench = Bench(
        deployment("far", region="us"), deployment("near", region="eu"), deployment("later", order=1, region="eu")
    )

    assert bench.order(region="eu") == ["near", "far", "later"]
    assert set(Bench(deployment("any"), deployment("near", region="eu")).firsts(region="eu")) == {"any", "near"}


def test_weights_are_shares() -> None:
    firsts = Bench(deployment("a", weight=3), deployment("b"), deployment("none", weight=0)).firsts()

    assert firsts["a"] / 2000 == pytest.approx(0.75, abs=0.04)
    assert firsts["none"] == 0


def test_one_without_weight_is_the_last_resort_of_its_order() -> None:
    bench = Bench(deployment("none", weight=0), deployment("a"), deployment("b"), deployment("later", order=1))

    assert bench.order()[2:] == ["none", "later"]


def test_a_clearly_faster_one_gets_more_and_the_slow_one_another_chance() -> None:
    bench = Bench(deployment("slow"), deployment("fast"))
    bench.measure("slow", 2.0)
    bench.measure("fast", 1.0)

    assert bench.firsts()["fast"] / 2000 == pytest.approx(0.95, abs=0.03)
    assert bench.firsts(now=NOW + STALE_S)["fast"] / 2000 == pytest.approx(0.5, abs=0.05)


def test_the_first_few_calls_say_nothing_of_a_deployments_speed() -> None:
    bench = Bench(deployment("cold"), deployment("warm"))
    bench.measure("warm", 0.2)
    cold = bench.health("cold")
    cold.good(NOW, cold.begin(NOW), 5.0)
    cold.end()

    assert bench.firsts()["cold"] / 2000 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("one_s", "other_s"), [(1.0, 1.4), (0.001, 0.09)])
def test_differences_that_nobody_minds_change_nothing(one_s: float, other_s: float) -> None:
    bench = Bench(deployment("a"), deployment("b"))
    bench.measure("a", one_s)
    bench.measure("b", other_s)

    assert bench.firsts()["b"] / 2000 == pytest.approx(0.5, abs=0.05)


def test_the_less_busy_one_is_first_by_its_weight() -> None:
    bench = Bench(deployment("a", weight=4), deployment("b"))
    bench.health("a").in_flight = 4
    bench.health("b").in_flight = 4

    assert bench.firsts()["a"] / 2000 == pytest.approx(0.98, abs=0.02)


def test_a_prompt_stays_where_it_is_cached_until_there_is_too_much_to_do() -> None:
    bench = Bench(*(deployment(name) for name in "abcd"))
    (home,) = bench.firsts(20, key=b"prompt")
    picked = bench.pick(key=b"prompt")
    assert picked.candidates[0].why.endswith("keeps this prompt's cache warm")

    bench.health(home).in_flight = 10
    (spilt,) = bench.firsts(20, key=b"prompt")

    assert spilt != home
    assert bench.pick(key=b"prompt").candidates[0].why.endswith("the one with this prompt's cache is busy")


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (ProviderBroke("x"), "rests after failures for"),
        (ProviderRefusedKey(401, "x"), "our key is refused"),
        (ProviderLimited(429, "x"), "limits us"),
    ],
)
def test_who_is_not_well_comes_last_whatever_its_order(failure: Any, why: str) -> None:
    bench = Bench(deployment("a"), deployment("b", order=9))
    bench.fail("a", failure)

    last = bench.pick().candidates[-1]

    assert last.deployment.name == "a"
    assert why in last.why


def test_who_is_full_comes_last() -> None:
    bench = Bench(deployment("a", concurrency=2), deployment("b", order=9))
    places = bench.health("a").places
    assert places is not None
    places.in_use = 2

    assert bench.order() == ["b", "a"]
    assert bench.pick().candidates[-1].why == "order 0; has its 2 calls under way"


def test_every_deployment_is_accounted_for() -> None:
    bench = Bench(
        deployment("a", region="eu"),
        deployment("poor", region="eu", is_configured=False),
        deployment("abroad", region="us"),
        deployment("nowhere"),
        deployment("canary", region="eu", canary_percent=1e-9),
        deployment("all", region="eu", canary_percent=100),
        deployment("shadow", region="eu", shadow_percent=100),
        deployment("dark", region="eu", shadow_percent=1e-9),
    )
    rules = Fences([ResidencyRecord(name="r", regions=("eu",))])

    picked = bench.pick(fence=rules.of(Caller(instance_id="i")))

    assert [each.deployment.name for each in picked.candidates] == ["all", "a"]
    assert [each.deployment.name for each in picked.shadows] == ["shadow"]
    assert {each.deployment.name: each.why for each in picked.left_out} == {
        "poor": "no credentials",
        "abroad": "is in us, the caller stays in eu",
        "nowhere": "does not say where it is, the caller stays in eu",
        "canary": "canary for 1e-09 % of callers, not for this one",
        "dark": "shadow of 1e-09 % of callers, not of this one",
    }


deployments = st.lists(
    st.builds(
        lambda number, order, weight, region: deployment(f"d{number}", order=order, weight=weight, region=region),
        st.integers(0, 9), st.integers(0, 2), st.integers(0, 3), st.sampled_from(["", "eu-1", "eu-2", "us-1"]),
    ),
    max_size=8,
    unique_by=lambda each: each.name,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(deployments, st.sampled_from([b"", b"key"]), st.sampled_from(["", "eu-1", "us-1"]), st.booleans())
def test_nobody_is_lost_doubled_or_let_out(found: Sequence[Deployment], key: bytes, region: str, fenced: bool) -> None:
    rules = Fences([ResidencyRecord(name="r", regions=("eu-*",))])
    fence = rules.of(Caller()) if fenced else None

    picked = Bench(*found).pick(key=key, region=region, fence=fence)

    names = [each.deployment.name for each in (*picked.candidates, *picked.left_out)]
    assert sorted(names) == sorted(each.name for each in found)
    orders = [each.deployment.order for each in picked.candidates]
    assert orders == sorted(orders)
    if fenced:
        assert all(each.deployment.region.startswith("eu-") for each in picked.candidates)
        assert picked.is_fenced_out == (bool(found) and not picked.candidates)


# Fences


def rule(name: str, *regions: str, **whose: str) -> ResidencyRecord:
    return ResidencyRecord(name=name, regions=regions or ("eu",), **whose)


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        (Caller(instance_id="i1", realm="saas"), {"one"}),
        (Caller(instance_uid="i1", realm="saas"), {"one"}),
        (Caller(instance_id="i2", realm="saas"), {"hosted", "all"}),
        (Caller(instance_id="i2", realm="SaaS"), {"hosted", "all"}),
        (Caller(instance_id="i2", realm="self-managed"), {"all"}),
        (Caller(realm="self-managed"), {"one", "all"}),  # might be i1
        (Caller(instance_id="i2"), {"hosted", "all"}),  # might be hosted
        (DEBUG_CALLER, {"one", "hosted", "all"}),
    ],
)
def test_a_caller_has_its_own_rule_or_its_realms_and_everybodys(caller: Caller, expected: set[str]) -> None:
    rules = Fences([rule("one", instance="i1"), rule("hosted", realm="saas"), rule("all")])

    fence = rules.of(caller)

    assert fence is not None
    assert {each.name for each in fence.rules} == expected


def test_without_a_rule_there_is_no_fence() -> None:
    assert Fences([rule("one", instance="i1"), rule("hosted", realm="saas")]).of(
        Caller(instance_id="i2", realm="self-managed")
    ) is None  # fmt: skip
    assert not Fences([]).are_any


@pytest.mark.parametrize(
    ("region", "regions", "is_inside"),
    [
        ("eu", ("eu",), True),
        ("eu", ("us", "eu"), True),
        ("eu-west1", ("eu",), False),
        ("eu-west1", ("eu-*",), True),
        ("neu-west1", ("eu-*",), False),
        ("", ("*",), False),
        ("us", ("*",), True),
        ("", ("",), False),
    ],
)
def test_a_region_is_inside_by_its_name_or_its_beginning(
    region: str, regions: tuple[str, ...], is_inside: bool
) -> None:
    fence = Fences([rule("r", *regions)]).of(Caller(instance_id="i"))

    assert fence is not None
    assert fence.allows(deployment("d", region=region)) is is_inside


@pytest.mark.parametrize(
    ("one", "other", "allowed"),
    [
        (("*",), ("*",), ("*",)),
        (("*",), ("eu-*", "us"), ("eu-*", "us")),
        (("eu-*",), ("eu-west1", "us"), ("eu-west1",)),
        (("eu",), ("us",), ()),
    ],
)
def test_what_several_rules_allow_together_is_what_records_may_be_kept_in(
    one: tuple[str, ...], other: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    fence = Fences([rule("one", *one), rule("other", *other)]).of(Caller(instance_id="i"))

    assert fence is not None
    assert fence.allowed == allowed


def test_the_demo_and_a_clients_own_server_are_always_inside() -> None:
    fence = Fences([rule("r", "eu")]).of(Caller(instance_id="i"))

    assert fence is not None
    assert fence.allows(Deployment(provider="demo", model="m"))
    assert fence.allows(deployment("own", region="us", is_client_given=True))


def test_the_book_forgets_old_servers_of_clients_and_never_what_is_under_way() -> None:
    book = HealthBook(RoutingSettings(), NoMeter())
    busy = deployment("busy", is_client_given=True)
    book.of(busy).begin(NOW)
    for number in range(2500):
        book.of(deployment(str(number), is_client_given=True))

    assert len(list(book)) <= 1000
    assert book.of(busy).in_flight == 1


def test_the_book_forgets_none_of_the_operators_for_clients_servers() -> None:
    book = HealthBook(RoutingSettings(), NoMeter())
    ours = book.of(deployment("ours"))
    for number in range(2500):
        book.of(deployment(str(number), is_client_given=True)).begin(NOW + number)

    assert book.of(deployment("ours")) is ours


def test_two_clients_keys_at_one_server_do_not_mix() -> None:
    from torana.settings import Secret

    book = HealthBook(RoutingSettings(), NoMeter())
    one = deployment("m", is_client_given=True, base_url="http://h", secret=Secret("a"))
    other = deployment("m", is_client_given=True, base_url="http://h", secret=Secret("b"))

    assert book.of(one) is not book.of(other)
    assert {health.name for health in book} == {"own"}
