"""The registry: what a name leads to, and what is known of it."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

from torana.catalog.load import load_catalogue
from torana.chat import Usage
from torana.environment import load_settings
from torana.routing.discovery import FirstModel
from torana.routing.models import Models
from torana.transport import Fetched
from torana.usage.prices import cost_usd

OWN = """\
models:
- name: acme
  title: Acme
  prices: {as_of: 2026-01-02, input: "1", output: "2.5"}
  deployments:
  - {provider: anthropic, model: acme-1}
  - {provider: anthropic, model: acme-1, region: eu, prices: {as_of: 2026-02-03, input: "1.1"}}
"""


def models_of(env: dict[str, str], *overlays: Path) -> Models:
    return Models(load_catalogue(overlays), load_settings(env).providers)


def test_a_deployments_own_prices_replace_its_models_whole(tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_text(OWN)

    here, there = models_of({"ANTHROPIC_API_KEY": "k"}, tmp_path).find_by_name("acme").deployments

    assert here.prices is not None
    assert (here.prices.as_of, here.prices.output) == ("2026-01-02", Decimal("2.5"))
    assert there.prices is not None
    assert (there.prices.as_of, there.prices.input, there.prices.output) == ("2026-02-03", Decimal("1.1"), None)


def test_what_a_list_says_of_long_prompts_and_of_tiers_is_what_they_cost(tmp_path: Path) -> None:
    more = 'long: {over: 1000, input: "2", output: "5"}, times: {flex: "0.5"}'
    (tmp_path / "models.yml").write_text(OWN.replace('output: "2.5"}', f'output: "2.5", {more}}}'))
    (here, _) = models_of({"ANTHROPIC_API_KEY": "k"}, tmp_path).find_by_name("acme").deployments

    usual, long = (cost_usd(Usage(input_tokens=tokens), here.prices) for tokens in (1000, 1001))
    flex = cost_usd(Usage(input_tokens=1000, tiers=("flex",)), here.prices)

    assert (usual, long, flex) == (Decimal("0.001"), Decimal("0.002002"), Decimal("0.0005"))


def test_the_default_of_a_vendor_and_what_is_passed_through_cost_what_their_model_costs() -> None:
    models = models_of({"OPENAI_API_KEY": "k"})

    default = models.find_by_name("chat_default").deployments[0]
    relayed = models.deployment_of("openai", "gpt-5.2-2025-12-11")

    assert default.prices is not None
    assert default.prices == models.find_by_name("gpt_5_4_mini").deployments[0].prices
    assert relayed.prices is not None
    assert relayed.prices.output == Decimal("14")
    assert models.deployment_of("openai", "gpt-77").prices is None


def test_the_prices_of_another_server_are_unknown() -> None:
    models = models_of({"OPENAI_BASE_URL": "http://127.0.0.1:9", "AIGW_OPENAI_MODEL": "gpt-5.2-2025-12-11"})

    assert models.find_by_name("chat_default").deployments[0].prices is None
    assert models.deployment_of("openai", "gpt-5.2-2025-12-11").prices is None


def test_every_shipped_model_says_what_it_can_do_and_costs() -> None:
    for record in load_catalogue().models.values():
        assert record.capabilities, record.name
        # What the operator's own servers cost, only the operator knows.
        assert record.prices is not None or record.deployments[0].model == "", record.name


def test_google_answers_from_the_operators_region_where_no_deployment_names_one() -> None:
    models = models_of({"AIGW_GOOGLE_CLOUD_PLATFORM__LOCATION": "europe-west4"})

    (deployment,) = models.find_in_any_stage("text_embedding_005_vertex").deployments

    assert deployment.region == "europe-west4"  # which `residency` goes by


class HeldList:
    """A server whose list of models comes when the test says so."""

    def __init__(self) -> None:
        self.may_come = asyncio.Event()

    async def fetch(self, url: str, **_told: Any) -> Fetched:
        await self.may_come.wait()
        return Fetched(status=200, headers={}, body=b'{"data": [{"id": "first-model"}]}')


async def test_a_request_before_the_first_list_waits_for_it() -> None:
    server = HeldList()
    first = FirstModel(load_settings({"OPENAI_BASE_URL": "http://rack:8000"}).providers, server)
    asking = asyncio.create_task(first.current())
    await asyncio.sleep(0)
    assert not asking.done()

    server.may_come.set()

    assert await asking == "first-model"
    await first.aclose()
