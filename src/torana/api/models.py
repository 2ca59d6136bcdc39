"""GET /v1/models/definitions: the catalogue that an instance offers its administrators (contract 11)."""

from typing import Any

from torana.api.exchange import Exchange, Reply, Route, json_reply
from torana.caller import Permit
from torana.catalog.check_abilities import IN_USE
from torana.catalog.records import ModelRecord
from torana.routing.models import Models


class ModelEndpoints:
    def __init__(self, models: Models) -> None:
        self.models = models

    def routes(self) -> list[Route]:
        return [Route(path="/v1/models/definitions", methods=("GET",), handle=self.show, body="none", is_open=True)]

    async def show(self, exchange: Exchange, permit: Permit, _order: Any) -> Reply:
        return json_reply(self.definitions())

    def definitions(self) -> dict[str, Any]:
        """Only models whose provider is configured: what is offered must answer."""
        listed = [
            record
            for record in self.models.catalogue.models.values()
            if record.is_listed and record.stage in IN_USE and self._answers(record)
        ]
        names = [record.name for record in listed]
        retiring = [
            {
                "identifier": record.name,
                "deprecation_date": record.deprecation.deprecation_date,
                "removal_version": record.deprecation.removal_version,
            }
            for record in listed
            if record.deprecation is not None
        ]
        settings: list[dict[str, Any]] = []
        for setting in self.models.catalogue.feature_settings.values():
            of_kind = self._of_kind(setting.default, names)
            selectable = [name for name in setting.selectable or of_kind if name in of_kind]
            default = self._default(setting.name, setting.default, of_kind)
            if not default:
                continue
            settings.append(
                {
                    "feature_setting": setting.name,
                    "default_model": default,
                    "default_models": [default],
                    "models_for_tags": {},
                    "models_for_size_preference": {},
                    "selectable_models": selectable,
                    "beta_models": [record.name for record in listed if record.is_beta and record.name in selectable],
                    "deprecated_models": [row for row in retiring if row["identifier"] in selectable],
                    "dev": None,
                    "unit_primitives": list(setting.unit_primitives),
                }
            )
        return {"models": [_model(record) for record in listed], "unit_primitives": settings}

    def _of_kind(self, default: str, names: list[str]) -> list[str]:
        """Those of `names` that can stand in for a setting's default: all make vectors, or all answer in text."""
        makes_vectors = bool(self.models.find_by_name(default).dimensions)
        return [name for name in names if bool(self.models.catalogue.models[name].dimensions) == makes_vectors]

    def _answers(self, record: ModelRecord) -> bool:
        return any(map(self.models.is_reachable, record.deployments))

    def _default(self, setting: str, name: str, listed: list[str]) -> str:
        """The listed model behind a setting's default: the alias's first one that is shown, else any."""
        override = self.models.settings.default_models.get(setting)
        if isinstance(override, str) and override in listed:
            return override
        alias = self.models.catalogue.aliases.get(name)
        candidates = alias.models if alias is not None else (name,)
        return next((model for model in candidates if model in listed), listed[0] if listed else "")


def _model(record: ModelRecord) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": f"{record.title} - {record.vendor}" if record.vendor else record.title,
        "identifier": record.name,
    }
    if record.vendor:
        shown["provider"] = record.vendor
    if record.deprecation is not None:
        shown["deprecation"] = {
            "deprecation_date": record.deprecation.deprecation_date,
            "removal_version": record.deprecation.removal_version,
        }
    if record.description:
        shown["description"] = record.description
    if record.cost_indicator:
        shown["cost_indicator"] = record.cost_indicator
    return shown
