"""GET /v1/models/definitions: the catalogue that an instance offers its administrators (contract 11)."""

from collections.abc import Collection, Mapping
from typing import Any

from torana.access.permissions import enabled_flags
from torana.api.exchange import Exchange, Reply, Route, json_reply
from torana.auth_settings import AuthSettings
from torana.caller import Permit
from torana.catalog.check_abilities import IN_USE
from torana.catalog.model_records import FeatureSettingRecord, ModelRecord
from torana.routing.models import CHAT, FILL_IN, PSEUDO, Models

MULTI_DEFAULTS = "ai_gateway_multi_default_models"
"""A flag of the client: it knows identifiers that stand for several defaults."""


class ModelEndpoints:
    def __init__(self, models: Models, settings: AuthSettings) -> None:
        self.models = models
        self.settings = settings

    def routes(self) -> list[Route]:
        return [Route(path="/v1/models/definitions", methods=("GET",), handle=self.show, body="none", is_open=True)]

    async def show(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        # Nobody is authenticated here: the realm is the header's word, and switches a list's form at most.
        flags = enabled_flags(exchange.headers, exchange.headers.text(b"x-gitlab-realm"), self.settings)
        return json_reply(self.definitions(has_multi_defaults=MULTI_DEFAULTS in flags))

    def definitions(self, *, has_multi_defaults: bool = False) -> dict[str, Any]:
        """Only models in use whose provider is configured: what is offered must answer."""
        catalogue = self.models.catalogue
        answering = {record.name: record for record in catalogue.models.values() if self.models.answers(record)}
        listed = {name: each for name, each in answering.items() if each.is_listed and each.stage in IN_USE}
        models = [_model(record) for record in listed.values()]
        rows: list[dict[str, Any]] = []
        extra: dict[str, ModelRecord] = {}
        for setting in catalogue.feature_settings.values():
            able = self._able(setting, listed)
            defaults = self._defaults(setting, able)
            if not defaults:
                continue
            for_developers = self._able(setting, {name: answering[name] for name in setting.dev if name in answering})
            extra.update((name, answering[name]) for name in for_developers if name not in listed)
            row = _setting(setting, listed, able, defaults)
            if for_developers:
                row["dev"] = {"selectable_models": for_developers}
            if has_multi_defaults and len(defaults) > 1:
                pseudo = PSEUDO + setting.name
                row["default_model"] = pseudo
                row["selectable_models"].insert(0, pseudo)
                titles = ", ".join(listed[name].title for name in defaults)
                models.append({"name": f"Default ({titles})", "identifier": pseudo})
            rows.append(row)
        return {"models": [*models, *map(_model, extra.values())], "unit_primitives": rows}

    def _able(self, setting: FeatureSettingRecord, offered: Mapping[str, ModelRecord]) -> list[str]:
        """Those that can stand in for the setting's default, and do what its features ask for."""
        if self.models.find_by_name(setting.default).dimensions:
            needs = frozenset({"embeddings"})
        else:
            features = self.models.catalogue.features.values()
            needs = frozenset({"chat"}).union(
                *(feature.needs for feature in features if feature.feature_setting == setting.name)
            )
        # What completes code need not be able to talk.
        fills_in = setting.name == "code_completions"
        return [
            name
            for name, record in offered.items()
            if needs <= record.abilities or (fills_in and needs - CHAT <= record.abilities >= FILL_IN)
        ]

    def _defaults(self, setting: FeatureSettingRecord, able: list[str]) -> list[str]:
        """The offered models behind a setting's default, best first; any one that is offered where none of them is."""
        override = self.models.settings.default_models.get(setting.name)
        if isinstance(override, str) and override in able:
            return [override]
        alias = self.models.catalogue.aliases.get(setting.default)
        behind = alias.models if alias is not None else (setting.default,)
        return [name for name in behind if name in able] or able[:1]


def _setting(
    setting: FeatureSettingRecord, listed: Mapping[str, ModelRecord], able: list[str], defaults: list[str]
) -> dict[str, Any]:
    selectable = [name for name in setting.selectable or able if name in able]
    # A default that administrators could not choose back would be lost with the first choice.
    selectable = [*(name for name in defaults if name not in selectable), *selectable]
    return {
        "feature_setting": setting.name,
        "default_model": defaults[0],
        "default_models": defaults,
        "models_for_tags": _named(setting.tags, listed),
        "models_for_size_preference": _named(setting.size_preference, listed),
        "selectable_models": selectable,
        "beta_models": [name for name in selectable if listed[name].is_beta],
        "deprecated_models": [
            {"identifier": name, **ending} for name in selectable if (ending := _ending(listed[name])) is not None
        ],
        "dev": None,
        "unit_primitives": list(setting.unit_primitives),
    }


def _named(chosen: Mapping[str, str | tuple[str, ...]], known: Collection[str]) -> dict[str, Any]:
    """Without names that are not offered."""
    told: dict[str, Any] = {}
    for key, value in chosen.items():
        kept = [name for name in ((value,) if isinstance(value, str) else value) if name in known]
        if kept:
            told[key] = kept[0] if isinstance(value, str) else kept
    return told


def _ending(record: ModelRecord) -> dict[str, str] | None:
    end = record.deprecation
    return None if end is None else {"deprecation_date": end.deprecation_date, "removal_version": end.removal_version}


def _model(record: ModelRecord) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": f"{record.title} - {record.vendor}" if record.vendor else record.title,
        "identifier": record.name,
    }
    if record.vendor:
        shown["provider"] = record.vendor
    if (ending := _ending(record)) is not None:
        shown["deprecation"] = ending
    if record.description:
        shown["description"] = record.description
    if record.cost_indicator:
        shown["cost_indicator"] = record.cost_indicator
    return shown
