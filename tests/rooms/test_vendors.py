"""Vendors: where the rows of providers.yml and the environment lead."""

from pathlib import Path

import pytest

from torana.catalog.load import load_catalogue
from torana.catalog.model_records import Quirks
from torana.chat import ModelWish
from torana.environment import load_settings
from torana.errors import BadCatalogue, BadSetting
from torana.providers.provider import Deployment
from torana.routing.models import Models


def models_of(env: dict[str, str], overlay: Path | None = None, text: str = "") -> Models:
    overlays = ()
    if overlay is not None:
        (overlay / "models.yml").write_text(text)
        overlays = (overlay,)
    return Models(load_catalogue(overlays), load_settings(env).providers)


def deployments(tmp_path: Path, env: dict[str, str], deployment: str) -> tuple[Deployment, ...]:
    text = f"models:\n- name: acme\n  title: Acme\n  deployments: [{deployment}]\n"
    return models_of(env, tmp_path, text).find_by_name("acme").deployments


@pytest.mark.parametrize(
    ("env", "provider"),
    [
        ({"MISTRAL_API_KEY": "k"}, "mistral"),
        ({"AIGW_MODEL_KEYS__MISTRAL_API_KEY": "k"}, "mistral"),
        ({"AIGW_MODEL_KEYS__FIREWORKS_API_KEY": "k"}, "fireworks_ai"),
        ({"AIGW_MODEL_KEYS__FIREWORKS_PROVIDER_API_KEY": "k"}, "fireworks_ai"),
        ({"FIREWORKS_API_KEY": "k"}, "fireworks_ai"),
        ({"GROQ_API_KEY": "k"}, "groq"),
        ({"TOGETHER_API_KEY": "k"}, "together_ai"),
        ({"DEEPSEEK_API_KEY": "k"}, "deepseek"),
        ({"OPENROUTER_API_KEY": "k"}, "openrouter"),
        ({"OLLAMA_HOST": "127.0.0.1:11434"}, "ollama"),
        ({"HOSTED_VLLM_API_BASE": "http://vllm:8000/v1"}, "hosted_vllm"),
        ({"LLAMA_CPP_BASE_URL": "http://127.0.0.1:8080"}, "llama_cpp"),
        ({"LITELLM_PROXY_API_BASE": "http://litellm:4000"}, "litellm_proxy"),
    ],
)
def test_a_vendor_is_there_once_its_usual_name_is_set(env: dict[str, str], provider: str) -> None:
    models = models_of(env)

    configured = [name for name in models.catalogue.providers if models.is_configured(name)]

    assert configured == [provider, "demo"]
    assert models_of({}).is_configured(provider) is False
    assert load_settings(env).warnings == ()


@pytest.mark.parametrize("provider", ["hosted_vllm", "ollama", "litellm_proxy"])
def test_a_key_alone_makes_no_server_of_ones_own(provider: str) -> None:
    env = {"HOSTED_VLLM_API_KEY": "k", "OLLAMA_API_KEY": "k", "LITELLM_PROXY_API_KEY": "k"}

    assert not models_of(env).is_configured(provider)


def test_the_first_name_that_is_set_gives_key_and_address(tmp_path: Path) -> None:
    env = {
        "MISTRAL_API_KEY": "second",
        "AIGW_MODEL_KEYS__MISTRAL_API_KEY": "first",
        "MISTRAL_API_BASE": "http://second/v1",
        "MISTRAL_BASE_URL": "http://first/v1/",
    }

    (deployment,) = deployments(tmp_path, env, "{provider: mistral, model: codestral-2508, text_completions: true}")

    assert (deployment.secret.reveal(), deployment.base_url) == ("first", "http://first/v1")
    assert (deployment.like, deployment.quirks.call_id_chars) == ("openai", 9)
    assert deployment.paths == {"completions": "/v1/fim/completions"}


def test_a_host_without_a_scheme_is_reached_by_http(tmp_path: Path) -> None:
    (deployment,) = deployments(tmp_path, {"OLLAMA_HOST": "gpu:11434"}, "{provider: ollama, model: qwen3}")

    assert deployment.base_url == "http://gpu:11434"


def test_an_address_that_is_none_stops_the_start() -> None:
    with pytest.raises(BadSetting) as caught:
        models_of({"GROQ_BASE_URL": "ftp://nowhere", "UNRELATED_BASE_URL": "not even close"})

    assert caught.value.name == "GROQ_BASE_URL"


REGIONS = (
    '{"us": {"endpoint": "https://us.example/v1", "identifier": "accounts/us/models/m"},'
    ' "eu": {"endpoint": "https://eu.example/v1/", "identifier": "fireworks_ai/accounts/eu/models/m"}}'
)


def test_azures_addresses_alone_may_tell_a_version(tmp_path: Path) -> None:
    query = "?api-version=2024-10-21"
    azure = f"https://x.openai.azure.com/openai{query}"
    named = f"{{provider: azure, model: m, base_url: '{azure}'}}"

    assert deployments(tmp_path, {"AZURE_API_KEY": "k"}, named)[0].base_url == azure
    assert models_of({"AZURE_API_BASE": azure}).is_configured("azure")
    for env in ({"GROQ_BASE_URL": f"https://api.groq.example/openai{query}"}, {"OPENAI_BASE_URL": azure}):
        with pytest.raises(BadSetting, match=r"^(GROQ|OPENAI)_BASE_URL: has a query"):
            models_of(env)
    with pytest.raises(BadCatalogue, match="4: acme: base_url has a query"):
        deployments(tmp_path, {}, named.replace("azure,", "groq,"))


def test_fireworks_regional_endpoints_are_one_deployment_each() -> None:
    env = {"FIREWORKS_API_KEY": "k", "AIGW_MODEL_ENDPOINTS__FIREWORKS_REGIONAL_ENDPOINTS": REGIONS}

    model = models_of(env).find_by_name("completions_fast")

    assert [(each.region, each.base_url, each.model) for each in model.deployments] == [
        ("us", "https://us.example/v1", "accounts/us/models/m"),
        ("eu", "https://eu.example/v1", "accounts/eu/models/m"),
    ]
    assert {each.secret.reveal() for each in model.deployments} == {"k"}
    assert model.fill_in == "qwen"


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"ANTHROPIC_API_KEY": "k"}, "claude_haiku_4_5"),
        ({"ANTHROPIC_API_KEY": "k", "FIREWORKS_API_KEY": "k"}, "claude_haiku_4_5"),
        ({"ANTHROPIC_API_KEY": "k", "MISTRAL_API_KEY": "k"}, "codestral_2508"),
        ({}, "demo"),
    ],
)
def test_fast_completions_are_filled_in_where_a_vendor_does_it(env: dict[str, str], name: str) -> None:
    assert models_of(env).find_by_name("completions_fast").name == name


def test_a_regional_endpoint_without_an_address_stops_the_start() -> None:
    with pytest.raises(BadSetting):
        models_of({"AIGW_MODEL_ENDPOINTS__FIREWORKS_REGIONAL_ENDPOINTS": '{"us": {"endpoint": "https://x"}}'})


def test_a_clients_own_server_gets_its_vendors_manners_and_nothing_of_ours() -> None:
    models = models_of({"MISTRAL_API_KEY": "ours"})
    wish = ModelWish(
        is_own=True,
        identifier="mistral/codestral-2508",
        endpoint="http://theirs/v1",
        api_key="theirs",
        family="mistral",
    )

    deployment = models.find(wish).deployments[0]

    assert (deployment.model, deployment.base_url, deployment.secret.reveal()) == (
        "codestral-2508",
        "http://theirs/v1",
        "theirs",
    )
    assert (deployment.quirks.call_id_chars, deployment.quirks.suffix, deployment.paths) == (9, False, {})


def test_a_row_without_quirks_has_none() -> None:
    assert load_catalogue().providers["anthropic"].quirks == Quirks()
