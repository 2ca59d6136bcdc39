"""Which models clients of the dialect routes may name, and under which names."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torana.catalog.model_records import ModelRecord
from torana.errors import Invalid, Refusal
from torana.routing.discovery import FirstModel
from torana.routing.models import Model, Models

DEMO, DEMO_EMBEDDINGS = "demo", "demo_embeddings"
"""Names of the catalogue: what answers where nothing is configured."""

SHOWN = ("production", "deprecated")
"""Stages of models in lists; those in staging are there for whoever knows their names."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One row of a list of models."""

    id: str
    record: ModelRecord
    """What answers under this id."""

    @property
    def owner(self) -> str:
        return self.record.vendor or self.record.deployments[0].provider


class OfferedModels:
    """One snapshot's models by every name that they go by.

    Looked at in this order: aliases, names of the catalogue, `provider/model`, the providers' own names.
    """

    def __init__(self, models: Models, first_model: FirstModel | None = None) -> None:
        """first_model   of a server of the operator's own, whose name only the server knows"""
        self.models = models
        self._first_model = first_model
        self._unnamed = ""
        """The record that is asked for by that name."""
        self._by_provider: dict[str, tuple[str, str]] = {}
        """`provider/model` and the bare model → the record's name and, for the former, the provider."""
        for record in models.catalogue.models.values():
            for item in record.deployments:
                model = item.model or (models.settings.openai_model if item.provider == "openai" else "")
                if model:
                    self._by_provider.setdefault(f"{item.provider}/{model}", (record.name, item.provider))
                    self._by_provider.setdefault(model, (record.name, ""))
                elif item.provider == "openai":
                    self._unnamed = record.name

    def find(self, name: str) -> Model:
        """The model that a client names; raises Refusal 404 for one that is unknown or that nothing here serves."""
        catalogue = self.models.catalogue
        if name in catalogue.aliases or name in catalogue.models:
            model = self._find_in_use(name, name)
        elif name in self._by_provider:
            record, provider = self._by_provider[name]
            model = self._find_in_use(record, name)
            served = tuple(each for each in model.deployments if each.provider == provider)
            # With the demo in everybody's place no deployment is of that provider.
            if provider and served:
                model = replace(model, deployments=served)
        elif self._unnamed and self._is_first(name):
            model = self._find_in_use(self._unnamed, name)
        else:
            raise _unknown(name)
        if any(each.is_configured for each in model.deployments):
            return model
        if self._has_providers():
            provider = model.deployments[0].provider
            raise _unknown(name, f": no credentials for {provider} are configured")
        if model.dimensions:
            return replace(self.models.find_by_name(DEMO_EMBEDDINGS), dimensions=model.dimensions)
        return self.models.find_by_name(DEMO)

    def answering(self, name: str, *, embeds: bool = False) -> Model:
        """The model that answers a client who names one; raises Refusal 404.

        Where the demo answers everything (AIGW_MOCK_MODEL_RESPONSES), it answers under names that nobody knows too.
        """
        try:
            return self.find(name)
        except Refusal:
            if not self.models.settings.mock_responses:
                raise
            return self.models.find_by_name(DEMO_EMBEDDINGS if embeds else DEMO)

    def list(self) -> Iterator[Offer]:
        """What would answer, each model once under its catalogue name, then the aliases."""
        records = self.models.catalogue.models
        for record in records.values():
            if record.is_listed and record.stage in SHOWN and self.models.answers(record):
                yield Offer(record.name, record)
        for alias in self.models.catalogue.aliases:
            yield Offer(alias, records[self.models.find_by_name(alias).name])

    def offer(self, name: str) -> Offer:
        """The row of one name, whichever of them it is; raises Refusal 404."""
        return Offer(name, self.models.catalogue.models[self.find(name).name])

    def _is_first(self, name: str) -> bool:
        told = self._first_model.known if self._first_model is not None else ""
        return bool(told) and name in (told, f"openai/{told}")

    def _find_in_use(self, record: str, name: str) -> Model:
        try:
            return self.models.find_by_name(record)
        except Invalid:
            raise _unknown(name, ": it is registered, but not in use") from None

    def _has_providers(self) -> bool:
        return any(name != DEMO and self.models.is_configured(name) for name in self.models.catalogue.providers)


def _unknown(name: str, why: str = "") -> Refusal:
    shown = name[:100]
    text = f"The model `{shown}` cannot be reached{why}" if why else f"The model `{shown}` does not exist"
    return Refusal(404, "model_not_found", text, missing="model")
