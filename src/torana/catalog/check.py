"""Cross checks: every name that a record mentions exists. Templates are checked by the prompts room."""

import datetime
import re
from collections.abc import Container, Iterable, Mapping

from torana.catalog.records import DeploymentRecord, ModelRecord, PriceRecord
from torana.catalog.snapshot import Catalogue

_KEY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*_API_KEY", re.ASCII)
"""What the settings read as a vendor's key."""


def check_catalogue(catalogue: Catalogue) -> list[str]:
    """One line `file:line: what, expected` for each name that leads nowhere."""
    found = _Findings(catalogue)
    models, providers = catalogue.models, catalogue.providers
    answering = {*models, *catalogue.aliases}
    for provider in providers.values():
        if provider.key_env and not _KEY_NAME.fullmatch(provider.key_env):
            found.add(f"providers {provider.name}", *_wrong_key(provider.key_env))
    for model in models.values():
        found.need(f"models {model.name}", "provider", [each.provider for each in model.deployments], providers)
        if not model.deployments:
            found.add(f"models {model.name}", "has no deployments", "expected at least one")
        _check_life(found, model, models)
        _check_prices(found, model)
        if ("embeddings" in model.abilities) != bool(model.dimensions):
            found.add(
                f"models {model.name}",
                "`embeddings` and `dimensions` contradict each other",
                "expected both or neither: a model makes vectors of some length, or answers in text",
            )
    _check_deployments(found, models.values())
    for alias in catalogue.aliases.values():
        found.need(f"aliases {alias.name}", "model", alias.models, models)
        if not alias.models:
            found.add(f"aliases {alias.name}", "has no models", "expected at least one")
    for client_name in catalogue.client_names.values():
        found.need(f"client_names {client_name.name}", "alias or model", [client_name.model], answering)
    for setting in catalogue.feature_settings.values():
        key = f"feature_settings {setting.name}"
        found.need(key, "alias or model", [setting.default], answering)
        found.need(key, "model", setting.selectable, models)
        found.need(key, "unit primitive", setting.unit_primitives, catalogue.unit_primitives)
    paths: dict[str, str] = {}
    for feature in catalogue.features.values():
        key = f"features {feature.name}"
        found.need(key, "unit primitive", [feature.unit_primitive], catalogue.unit_primitives)
        found.need(key, "prompt", [feature.prompt_id], catalogue.prompts)
        found.need(key, "alias or model", [feature.model], answering)
        if feature.feature_setting:
            found.need(key, "feature setting", [feature.feature_setting], catalogue.feature_settings)
        other = paths.setdefault(feature.path, feature.name)
        if other != feature.name:
            found.add(key, f"path `{feature.path}` is that of `{other}`", "expected a path of its own")
    for denial in catalogue.deny.values():
        if not (denial.instance or denial.user or denial.token_id):
            found.add(f"deny {denial.name}", "denies nobody", "expected `instance`, `user` or `token_id`")
    return found.problems


def _check_life(found: "_Findings", model: ModelRecord, models: Mapping[str, ModelRecord]) -> None:
    """A model leaves with a date and a successor, or not at all."""
    key = f"models {model.name}"
    if model.stage != "deprecated":
        for member in ("deprecation", "successor"):
            if getattr(model, member):
                found.add(key, f"has a `{member}` in stage {model.stage}", "expected `stage: deprecated` with it")
        return
    if model.deprecation is None:
        found.add(key, "is deprecated without a date", "expected `deprecation: {deprecation_date: YYYY-MM-DD}`")
    elif not _is_day(model.deprecation.deprecation_date):
        found.add(key, f"there is no day {model.deprecation.deprecation_date}", "expected a day as YYYY-MM-DD")
    if not model.successor:
        found.add(key, "is deprecated without a successor", "expected `successor: <name of a model>`")
    elif model.successor not in models:
        found.need(key, "model", [model.successor], models)
    elif model.successor == model.name:
        found.add(key, "is its own successor", "expected another model")


def _check_prices(found: "_Findings", model: ModelRecord) -> None:
    for prices in (model.prices, *(each.prices for each in model.deployments)):
        if isinstance(prices, PriceRecord) and not _is_day(prices.as_of):
            found.add(f"models {model.name}", f"there is no day {prices.as_of}", "expected a day as YYYY-MM-DD")


def _check_deployments(found: "_Findings", models: Iterable[ModelRecord]) -> None:
    """A deployment's name says which one it is in logs, metrics and breakers: never two under one name."""
    seen: dict[str, tuple[object, ...]] = {}
    for model in models:
        key = f"models {model.name}"
        within: set[str] = set()
        for item in model.deployments:
            if item.key_env and not _KEY_NAME.fullmatch(item.key_env):
                found.add(key, *_wrong_key(item.key_env))
            if item.label in within:
                found.add(key, f"deployment `{item.label}` stands twice", "expected a `name` of its own for each")
            elif seen.setdefault(item.label, _identity(item)) != _identity(item):
                found.add(
                    key, f"deployment `{item.label}` is another one elsewhere", "expected a `name` of its own for each"
                )
            within.add(item.label)


def _identity(item: DeploymentRecord) -> tuple[object, ...]:
    return (item.provider, item.model, item.region, item.account, item.base_url, item.key_env)


def _wrong_key(name: str) -> tuple[str, str]:
    return f"key_env `{name}` is not read from the environment", "expected a name that ends in `_API_KEY`"


def _is_day(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


class _Findings:
    def __init__(self, catalogue: Catalogue) -> None:
        self.places = catalogue.places
        self.problems: list[str] = []

    def need(self, key: str, what: str, names: Iterable[str], known: Container[str]) -> None:
        for name in names:
            if name not in known:
                self.add(key, f"unknown {what} `{name}`", f"expected the name of a known {what}")

    def add(self, key: str, wrong: str, expected: str) -> None:
        self.problems.append(f"{self.places[key]}: {key.partition(' ')[2]}: {wrong}, {expected}")
