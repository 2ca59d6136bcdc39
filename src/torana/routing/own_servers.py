"""A client's own model server: what `model_metadata` says of it, as a deployment (contract 10.2). Sends nothing."""

import logging
from dataclasses import dataclass

from torana.catalog.load import Catalogue
from torana.catalog.model_records import FamilyRecord
from torana.chat import ModelWish
from torana.errors import Invalid
from torana.providers.provider import Deployment
from torana.routing.vendors import Vendors
from torana.settings import ProviderSettings, Secret

logger = logging.getLogger("torana.routing")

KNOWN_PROVIDERS = frozenset(
    {
        "custom_openai", "openai", "hosted_vllm", "text-completion-openai", "azure", "bedrock", "vertex_ai",
        "anthropic", "gemini", "mistral", "fireworks_ai", "ollama", "litellm_proxy",
    }
)  # fmt: skip
"""What may stand before the first slash of an identifier (contract 10.2)."""

OPERATORS_OWN = frozenset({"bedrock", "vertex_ai"})
"""Reached with the operator's credentials whatever endpoint the client names; so only catalogue models."""

TEXT_COMPLETION_FAMILIES = frozenset(
    {"codegemma", "codellama", "codestral", "mistral", "qwen2p5-coder-7b", "deepseekcoder"}
)
"""Code completions of these go to POST <endpoint>/completions with the family's markers (contract 10.2)."""

MAX_UNKNOWN_FAMILIES = 100


@dataclass(frozen=True, slots=True)
class Named:
    """What a client has named."""

    name: str
    """The catalogue's name of a model of the operator's; else the family, or the server's own name."""
    family: FamilyRecord
    deployment: Deployment


class OwnServers:
    """Reads wishes for them; one for each catalogue."""

    def __init__(self, catalogue: Catalogue, settings: ProviderSettings, vendors: Vendors) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._vendors = vendors
        self._unknown_families: set[str] = set()
        """Those that were warned of."""

    def read(self, wish: ModelWish) -> Named:
        """Raises Invalid for what names no model, or no place where it could be asked."""
        prefix, slash, rest = wish.identifier.partition("/")
        provider = prefix if slash and prefix in KNOWN_PROVIDERS else ""
        model = (rest if provider else wish.identifier) or wish.family
        if wish.endpoint and not model:
            # An empty name stands for what the operator's own server has, and says nothing of the client's.
            raise Invalid(("model_metadata", "name"), "Field required", "missing")
        family = self._catalogue.families.get(wish.family)
        if family is None:
            self._warn_of(wish.family)
            family = self._catalogue.families.get("general", FamilyRecord(name="general"))
        name = wish.family or model
        if self._settings.mock_responses:
            deployment = Deployment(provider="demo", model="torana-demo")
        elif provider in OPERATORS_OWN or (provider and not wish.endpoint):
            # The catalogue's name: limits count the operator's models by it, whatever a client calls them.
            name, deployment = self._listed(provider, model)
        elif not wish.endpoint:
            raise Invalid(("model_metadata", "endpoint"), "Field required", "missing")
        else:
            deployment = self._at_endpoint(wish, provider, model)
        return Named(name, family, deployment)

    def _at_endpoint(self, wish: ModelWish, provider: str, model: str) -> Deployment:
        is_text = provider == "text-completion-openai" or (
            wish.as_text_completion
            and (wish.family in TEXT_COMPLETION_FAMILIES or (wish.is_flat and not wish.identifier))
        )
        deployment = Deployment(
            provider=provider if provider in ("anthropic", "azure") else "openai",
            model=model,
            base_url=wish.endpoint.removesuffix("/"),
            secret=Secret(wish.api_key),
            as_text_completion=is_text and provider != "anthropic",
            is_client_given=True,
            extra_headers={str(name): str(value) for name, value in self._settings.extra_headers.items()},
        )
        return self._vendors.dress(deployment, provider)

    def may_embed(self, deployment: Deployment) -> bool:
        """Whether a model that `read` has found may make embeddings; of the operator's own the catalogue knows it."""
        if deployment.provider not in OPERATORS_OWN:
            return deployment.provider in ("openai", "azure", "demo")
        asked = (deployment.provider, deployment.model)
        made = (each for record in self._catalogue.models.values() if record.dimensions for each in record.deployments)
        return any((each.provider, each.model) == asked for each in made)

    def _warn_of(self, family: str) -> None:
        """Once for each name; clients choose them, so not for ever more of them."""
        if family and family not in self._unknown_families and len(self._unknown_families) < MAX_UNKNOWN_FAMILIES:
            self._unknown_families.add(family)
            logger.warning("unknown model family, treated as general", extra={"family": family})

    def _listed(self, provider: str, model: str) -> tuple[str, Deployment]:
        """A catalogue model's name and its deployment there; the operator's credentials serve it."""
        wrong = "This model is not in the catalogue"
        for record in self._catalogue.models.values():
            for item in record.deployments:
                if (item.provider, item.model) != (provider, model):
                    continue
                if record.stage != "registered":
                    return record.name, self._vendors.deploy(item, record.prices)
                wrong = "This model is registered, but not in use"
        raise Invalid(("model_metadata", "identifier"), wrong, "value_error")
