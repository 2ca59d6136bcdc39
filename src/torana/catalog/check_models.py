"""Cross checks of model records: their lives, prices and deployments."""

import datetime
import re
from collections.abc import Iterable, Mapping

from torana.catalog.document import nearest
from torana.catalog.findings import Findings
from torana.catalog.model_params import wrong_params
from torana.catalog.model_records import DeploymentRecord, ModelRecord, ProviderRecord
from torana.environment import ADDRESS_NAMES, is_address_name
from torana.setting_values import is_header, url_fault

_KEY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*_API_KEY", re.ASCII)
"""What the settings read as a vendor's key."""

_CLOUD_DIALECTS = {"aws": "converse", "google": "generate_content"}
"""A cloud's own way of telling who calls → what is spoken behind it."""

_MODEL_IN_PATH = ("generate_content", "converse")

_AZURE = "azure"
"""Whose addresses may tell a version."""

_PATH = re.compile(r"/[!\"$-~]*")

_OWN_MODELS = ("openai", "fireworks_ai")
"""Whose models the settings name, where a record names none."""

_ASKED = ("chat", "completions", "responses", "embeddings", "models")
"""What a server is asked, each at a path of its own."""


def check_models(found: Findings, models: Mapping[str, ModelRecord], providers: Mapping[str, ProviderRecord]) -> None:
    for provider in providers.values():
        _check_provider(found, provider)
    for model in models.values():
        _check_model(found, model, models, providers)
        _check_ways(found, model, providers)
    _check_deployments(found, models.values())


def _check_provider(found: Findings, provider: ProviderRecord) -> None:
    key = f"providers {provider.name}"
    for name in provider.key_names:
        if not _KEY_NAME.fullmatch(name):
            found.add(key, *_wrong_key(name), mention=name)
    for name in provider.base_url_env:
        if not is_address_name(name):
            found.add(key, *_wrong_address(name), mention=name)
    _check_address(found, key, provider.base_url, provider.name)
    spoken = _CLOUD_DIALECTS.get(provider.auth or "", provider.dialect)
    if spoken != provider.dialect:
        wrong = f"`auth: {provider.auth}` does not go with `dialect: {provider.dialect}`"
        found.add(key, wrong, f"expected `dialect: {spoken}`, or another `auth`")
    if provider.paths and provider.dialect in _MODEL_IN_PATH:
        wrong = f"`paths` does not go with `dialect: {provider.dialect}`"
        found.add(key, wrong, "expected none: its paths hold the model's name")
    for name, path in provider.paths.items():
        if name not in _ASKED:
            hint = nearest(name, _ASKED, f"expected one of {', '.join(_ASKED)}")
            found.add(key, f"unknown member `{name}` of `paths`", hint)
        elif not _PATH.fullmatch(path):
            found.add(key, f"path `{path}` of `{name}`", "expected one that begins with /, as requests spell it")
    for name, value in provider.headers.items():
        if not is_header(name, value):
            found.add(key, f"header `{name}` cannot be sent", "expected a name: one line")
    affinity = provider.quirks.affinity_header
    if affinity and not is_header(affinity, ""):
        found.add(key, f"affinity_header `{affinity}` cannot be sent", "expected a name")


def _check_model(
    found: Findings, model: ModelRecord, models: Mapping[str, ModelRecord], providers: Mapping[str, ProviderRecord]
) -> None:
    key = f"models {model.name}"
    found.need(key, "provider", [each.provider for each in model.deployments], providers)
    if not model.deployments:
        found.add(key, "has no deployments", "expected at least one")
    elif all(each.canary_percent or each.shadow_percent for each in model.deployments):
        found.add(
            key,
            "has canaries and shadows only",
            "expected a deployment for everybody else, without `canary_percent` and `shadow_percent`",
        )
    _check_life(found, model, models)
    _check_prices(found, model)
    for _, wrong, expected in wrong_params(model.params):
        found.add(key, wrong, expected)
    if ("embeddings" in model.abilities) != bool(model.dimensions):
        found.add(
            key,
            "`embeddings` and `dimensions` contradict each other",
            "expected both or neither: a model makes vectors of some length, or answers in text",
        )


def _check_ways(found: Findings, model: ModelRecord, providers: Mapping[str, ProviderRecord]) -> None:
    """Whether a call could ever be sent to each of its deployments."""
    for item in model.deployments:
        provider = providers.get(item.provider)
        if provider is None or provider.dialect == "demo":
            continue
        if not item.model and item.provider not in _OWN_MODELS:
            found.add(
                f"models {model.name}", f"deployment at `{item.provider}` has no `model`", "expected its name there"
            )
        is_somewhere = provider.base_url or provider.base_url_env or provider.auth in _CLOUD_DIALECTS or item.base_url
        if not is_somewhere and provider.dialect != "converse":
            wrong = f"provider `{item.provider}` has no address"
            found.add(f"models {model.name}", wrong, "expected `base_url` or `base_url_env` there, or `base_url` here")


def _check_life(found: Findings, model: ModelRecord, models: Mapping[str, ModelRecord]) -> None:
    """A model leaves with a date and a successor, or not at all."""
    key = f"models {model.name}"
    if model.stage != "deprecated":
        for member in ("deprecation", "successor"):
            if getattr(model, member):
                found.add(key, f"has a `{member}` in stage {model.stage}", "expected `stage: deprecated` with it")
        return
    if model.deprecation is None:
        found.add(key, "is deprecated without a date", "expected `deprecation: {deprecation_date: YYYY-MM-DD}`")
    else:
        for day in (model.deprecation.deprecation_date, model.deprecation.announced):
            if day is not None and not _is_day(day):
                found.add(key, f"there is no day {day}", "expected a day as YYYY-MM-DD", mention=day)
    if not model.successor:
        found.add(key, "is deprecated without a successor", "expected `successor: <name of a model>`")
    elif model.successor not in models:
        found.need(key, "model", [model.successor], models)
    elif _is_in_circle(model, models):
        found.add(key, "is its own successor", "expected another model")
    elif models[model.successor].stage not in ("production", "deprecated"):
        found.add(
            key,
            f"successor `{model.successor}` is in stage {models[model.successor].stage}",
            "expected one in stage production",
        )


def _is_in_circle(model: ModelRecord, models: Mapping[str, ModelRecord]) -> bool:
    at, steps = model, 0
    while at.successor in models and steps < len(models):
        at, steps = models[at.successor], steps + 1
        if at is model:
            return True
    return False


def _check_prices(found: Findings, model: ModelRecord) -> None:
    for prices in (model.prices, *(each.prices for each in model.deployments)):
        if prices is None:
            continue
        days = [each.since for each in prices.later]
        for day in (prices.as_of, *days):
            if not _is_day(day):
                wrong = f"there is no day {day}"
                found.add(f"models {model.name}", wrong, "expected a day as YYYY-MM-DD", mention=day)
        if days != sorted(set(days)):
            found.add(f"models {model.name}", "`later` prices are in no order", "expected each `since` after the last")


def _check_deployments(found: Findings, models: Iterable[ModelRecord]) -> None:
    """A deployment's name says which one it is in logs, metrics and breakers: never two under one name."""
    seen: dict[str, tuple[object, ...]] = {}
    for model in models:
        key = f"models {model.name}"
        within: set[str] = set()
        for item in model.deployments:
            if item.key_env and not _KEY_NAME.fullmatch(item.key_env):
                found.add(key, *_wrong_key(item.key_env), mention=item.key_env)
            _check_address(found, key, item.base_url, item.provider)
            if item.canary_percent and item.shadow_percent:
                found.add(
                    key,
                    f"deployment `{item.label}` is a canary and a shadow",
                    "expected one of `canary_percent` and `shadow_percent`",
                )
            if item.label in within:
                found.add(key, f"deployment `{item.label}` stands twice", "expected a `name` of its own for each")
            elif seen.setdefault(item.label, _identity(item)) != _identity(item):
                found.add(
                    key, f"deployment `{item.label}` is another one elsewhere", "expected a `name` of its own for each"
                )
            within.add(item.label)


def _identity(item: DeploymentRecord) -> tuple[object, ...]:
    return (item.provider, item.model, item.region, item.account, item.base_url, item.key_env)


def _check_address(found: Findings, key: str, address: str, provider: str) -> None:
    if address and (fault := url_fault(address, is_base=True, is_azures=provider == _AZURE)):
        found.add(key, f"base_url {fault}", "expected http://… or https://…", mention=address)


def _wrong_key(name: str) -> tuple[str, str]:
    return f"key_env `{name}` is not read from the environment", "expected a name that ends in `_API_KEY`"


def _wrong_address(name: str) -> tuple[str, str]:
    expected = f"expected a name that ends in {', '.join(ADDRESS_NAMES)}"
    return f"base_url_env `{name}` is not read from the environment", expected


def _is_day(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True
