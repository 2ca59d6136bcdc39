"""Which model a wish means, and where it is deployed. Looks up; sends nothing."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torana.catalog.check_abilities import IN_USE
from torana.catalog.check_tokenizers import tokenizer_paths
from torana.catalog.load import Catalogue
from torana.catalog.model_records import AliasRecord, DeploymentRecord, ModelRecord
from torana.chat import ModelWish
from torana.clock import Clock
from torana.errors import Invalid, Refusal
from torana.providers.provider import Deployment
from torana.routing.health import Listing
from torana.routing.own_servers import OwnServers
from torana.routing.price_list import PriceList
from torana.routing.stages import NEVER, Stages, start_of
from torana.routing.vendors import Vendors
from torana.settings import ProviderSettings
from torana.vocabulary import Vocabulary, read_vocabulary

logger = logging.getLogger("torana.routing")

SETTINGS_OF_ROLES = {"completions_default": "code_completions", "generation_default": "code_generations"}
"""What the operator's AIGW_MODEL_SELECTION__DEFAULT_MODELS calls these roles."""

CHAT = frozenset({"chat"})
FILL_IN = frozenset({"fill_in"})

PSEUDO = "__default__"
"""Stands before a feature setting's name where an identifier means whatever is that setting's default (contract 11)."""
MAX_RELAYED = 1_000
"""Deployments of the pass-through that are remembered."""
MAX_MEANT = 1_000
"""Wishes whose models are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model a call may use, with everything the rooms ask of it."""

    name: str
    families: tuple[str, ...] = ()
    """Prompt variants to look for, best first."""
    capabilities: frozenset[str] = frozenset()
    """What the catalogue says that it can do; empty for a client's own server, of which nobody knows."""
    stage: str = "production"
    ends_at: float = NEVER
    """Unix seconds; of deprecated models."""
    announced_at: float | None = None
    """When its end was made known, Unix seconds; None: nobody says."""
    successor: str = ""
    input_limit: int = 32_768
    output_limit: int = 0
    """Tokens that it writes at most; 0: nobody knows."""
    vocabulary: Vocabulary | None = None
    """Counts its tokens; None: they are estimated."""
    dimensions: int = 0
    """Length of its vectors where it makes embeddings; 0: it answers in text, or nobody knows."""
    params: Mapping[str, Any] = field(default_factory=dict)
    hedge_after_s: float = 0.0
    """Silence after which a second deployment is asked as well; 0: never."""
    fill_in: str = ""
    """Name of the fill-in-the-middle format to mark prompts with; empty: an instruction prompt."""
    leaks_reasoning: bool = False
    folds_system: bool = False
    """Its chat templates refuse a system turn."""
    deployments: tuple[Deployment, ...]
    """In order of preference."""
    further: tuple["Model", ...] = ()
    """Where an alias was asked for: its other models that can be reached, for callers whose regions leave this one out.
    The demo is none of them: it answers where nothing is configured, not where nothing is allowed."""

    @property
    def is_demo(self) -> bool:
        return self.deployments[0].provider == "demo"

    @property
    def is_own(self) -> bool:
        return self.deployments[0].is_client_given


def in_location(model: Model, location: str) -> Model:
    """The same model, asked in this region wherever Vertex AI answers for it."""
    deployments = tuple(
        replace(each, region=location) if each.like == "vertex_ai" else each for each in model.deployments
    )
    return replace(model, deployments=deployments)


def name_of_relays(provider: str) -> str:
    """What all calls have in common that are passed through to a vendor, as metrics call it."""
    return f"{provider} proxy"


def refuse_unable(model: Model, needs: frozenset[str]) -> None:
    """Raises Invalid where the catalogue says that the model cannot do what is needed."""
    if model.capabilities and not needs <= model.capabilities:
        lacking = ", ".join(sorted(needs - model.capabilities))
        raise Invalid(("model_metadata", "identifier"), f"This model lacks {lacking}", "value_error")


def known_elsewhere(catalogue: Catalogue, identifier: str) -> str:
    """The client's name of a model that only GitLab's own gateway lists: instances keep what was once chosen there.
    Empty for any other identifier."""
    name = f"gitlab/{identifier}"
    is_ours = identifier in catalogue.models or identifier in catalogue.aliases
    return name if name in catalogue.client_names and not is_ours else ""


class Models:
    """The registry of one catalogue snapshot."""

    def __init__(self, catalogue: Catalogue, settings: ProviderSettings, clock: Clock | None = None) -> None:
        self.catalogue = catalogue
        self.settings = settings
        self.clock = clock or Clock()
        self.stages = Stages(catalogue.models)
        self._vocabularies = {key: read_vocabulary(path) for key, path in tokenizer_paths(catalogue).items()}
        self._found: dict[str, Model] = {}
        self._meant: dict[ModelWish, Model] = {}
        """Of wishes for models of the catalogue, beside `_found`."""
        self._found_since, self._found_until = math.inf, 0.0
        """When a model ends or a price changes, names lead elsewhere; and back again when the clock is set back."""
        self._told_of_end: set[tuple[str, str]] = set()
        self._relayed: dict[tuple[str, str], Deployment] = {}
        self.vendors = Vendors(catalogue.providers, settings, PriceList(catalogue.models.values(), self.clock))
        self._own_servers = OwnServers(catalogue, settings, self.vendors)

    def is_configured(self, provider: str) -> bool:
        """True where the provider can be greeted: its key is set, or it is a server that needs none."""
        return self.vendors.is_configured(provider)

    def find_by_name(self, name: str) -> Model:
        """An alias or a model of the catalogue; raises Invalid for any other name, and for a model not in use."""
        return self._by_name(name, ("model",))

    def find_in_any_stage(self, name: str) -> Model:
        """The very model of that name, for operators who look at it or try it out; raises Invalid."""
        if name not in self.catalogue.models:
            raise Invalid(("model",), "Unknown model identifier", "value_error")
        return self._of_record(self.catalogue.models[name])

    def listing(self) -> Listing:
        """The deployments by name, and what stands for vendors' pass-throughs."""
        models = map(self._of_record, self.catalogue.models.values())
        deployments = [each for model in models for each in model.deployments]
        relays = map(name_of_relays, self.catalogue.providers)
        bounded = frozenset(each.name for each in deployments if each.concurrency)
        return Listing(frozenset((*relays, *(each.name for each in deployments))), bounded)

    def find(self, wish: ModelWish, needs: frozenset[str] = CHAT) -> Model:
        """The model that a wish means.

        Raises Invalid for a name that is neither known nor aliased, for a model not in use, and for one that lacks
        what is needed; Refusal 501 for Amazon Q.
        """
        model = self._meant.get(wish)
        if model is None or not self._found_since <= self.clock.now() < self._found_until:
            model = self._find(wish)
            # Clients have a say in wishes: bounded. A server of a client's own has its key in it.
            if not wish.is_own and len(self._meant) < MAX_MEANT:
                self._meant[wish] = model
        refuse_unable(model, needs)
        if model.ends_at != NEVER:
            self._tell_of_end(model.name, model.name)
        return model

    def _find(self, wish: ModelWish) -> Model:
        if wish.is_own:
            return self._own(wish)
        if wish.client_name.startswith("amazon_q/"):
            raise Refusal(501, "amazon_q_unavailable", "Amazon Q is not available in this gateway")
        pseudo = self._pseudo_setting(wish.identifier)
        if wish.identifier and not pseudo:
            return self._by_identifier(wish.identifier)
        if wish.client_name and not pseudo:
            return self._by_client_name(wish.client_name)
        setting_name = pseudo or wish.feature_setting
        usual = wish.usual_setting or SETTINGS_OF_ROLES.get(wish.role, "")
        override = self.settings.default_models.get(setting_name or usual)
        if isinstance(override, str) and override:
            return self._by_name(override, ("model_metadata", "feature_setting"))
        # The wish's own role comes first where the setting is one that no catalogue lists.
        setting = self.catalogue.feature_settings.get(setting_name)
        if setting is not None:
            return self._by_name(setting.default, ("model_metadata", "feature_setting"))
        return self._by_name(wish.role or "chat_default", ("model_metadata",))

    def find_completing(self, wish: ModelWish) -> Model:
        """As `find`, for code at a cursor: a model that fills in need not be one that talks."""
        model = self.find(wish, frozenset())
        if not model.capabilities >= FILL_IN:
            refuse_unable(model, CHAT)
        return model

    def find_embedder(self, wish: ModelWish) -> Model:
        """As `find`, but a model that makes embeddings; raises Invalid for one that does not."""
        model = self.find(wish, frozenset())
        # Of a client's own server nobody knows what it makes; it is told by the way it is to be asked.
        if model.dimensions or (wish.is_own and self._own_servers.may_embed(model.deployments[0])):
            return model
        raise Invalid(("model_metadata", "identifier"), "This model makes no embeddings", "value_error")

    def proxy_allows(self, provider: str, model: str) -> bool:
        """True where the pass-through of `provider` lets this model name by (contract 9)."""
        allowed = self.catalogue.proxy_models.get(provider)
        return allowed is not None and (model in allowed.exact or model.startswith(allowed.prefixes))

    def deployment_of(self, provider: str, model: str) -> Deployment:
        """The configured provider itself, for the pass-through."""
        self._renew()
        found = self._relayed.get(key := (provider, model))
        if found is None:
            found = self.vendors.deploy(DeploymentRecord(provider=provider, model=model))
            # Clients choose model names: bounded.
            if len(self._relayed) < MAX_RELAYED:
                self._relayed[key] = found
        return found

    def _pseudo_setting(self, identifier: str) -> str:
        """The feature setting whose defaults an identifier of contract 11 stands for; empty for any other."""
        name = identifier.removeprefix(PSEUDO)
        return name if name != identifier and name in self.catalogue.feature_settings else ""

    def _by_identifier(self, identifier: str) -> Model:
        """A model of the catalogue's, or what has taken the place of one that an instance chose elsewhere."""
        old = known_elsewhere(self.catalogue, identifier)
        return self._by_client_name(old) if old else self._by_name(identifier, ("model_metadata", "identifier"))

    def _by_client_name(self, client_name: str) -> Model:
        known = self.catalogue.client_names.get(client_name)
        if known is not None:
            record = self.catalogue.models.get(known.model)
            # Taken out of use by the operator: the client's name stays good all the same.
            if record is None or record.stage != "registered" or known.model in self.catalogue.aliases:
                model = self._by_name(known.model, ("model_name",))
                if model.deployments[0].is_configured:
                    return model
            return self._by_name("chat_default", ("model_name",))
        raise Invalid(("model_name",), "Unknown model for this provider", "value_error")

    def _by_name(self, name: str, loc: tuple[str | int, ...]) -> Model:
        now = self._renew()
        found = self._found.get(name)
        if found is not None:
            return found
        alias = self.catalogue.aliases.get(name)
        record = self.catalogue.models.get(name)
        if alias is not None:
            record = self._first_configured(alias, now)
            found = replace(self._of_record(record), further=self._further(alias, record, now))
        elif record is None:
            raise Invalid(loc, "Unknown model identifier", "value_error")
        elif record.stage == "registered":
            raise Invalid(loc, "This model is registered, but not in use", "value_error")
        else:
            found = self._of_record(self._heir(record, now))
        self._found[name] = found
        return found

    def _renew(self) -> float:
        """Forget what was found where it may be another by now, which is returned."""
        now = self.clock.now()
        if not self._found_since <= now < self._found_until:
            self._found, self._meant, self._relayed = {}, {}, {}
            until = min(self.stages.next_end(now), self.vendors.prices.next_change(now))
            self._found_since, self._found_until = now, until
        return now

    def _first_configured(self, alias: AliasRecord, now: float) -> ModelRecord:
        records = self._records_of(alias, now)
        return next((record for record in records if self.answers(record)), records[-1])

    def _further(self, alias: AliasRecord, first: ModelRecord, now: float) -> tuple[Model, ...]:
        others = [each for each in self._records_of(alias, now) if each is not first and self.answers(each)]
        models = map(self._of_record, others if self.catalogue.residency else ())
        return tuple(model for model in models if not model.is_demo)

    def _records_of(self, alias: AliasRecord, now: float) -> list[ModelRecord]:
        named = [self.catalogue.models[name] for name in alias.models]
        return [self._heir(record, now) for record in named if record.stage in IN_USE]

    def _heir(self, record: ModelRecord, now: float) -> ModelRecord:
        """The record itself, or after its end the last of its successors that can be reached."""
        line = self.stages.heirs(record, now)
        heir = next((each for each in reversed(line) if self.answers(each)), line[-1])
        if heir is not record:
            self._tell_of_end(record.name, heir.name)
        return heir

    def answers(self, record: ModelRecord) -> bool:
        """True where one of its deployments can be reached."""
        return any(map(self.vendors.is_reachable, record.deployments))

    def _tell_of_end(self, name: str, answering: str) -> None:
        """Once for each model, in the log: somebody depends on it. And once more when it has ended."""
        end = self.catalogue.models[name].deprecation
        if end is not None and (name, answering) not in self._told_of_end:
            self._told_of_end.add((name, answering))
            what = "a deprecated model is in use" if name == answering else "a model that has ended is asked for"
            told = {"model": name, "ends": end.deprecation_date, "successor": self.catalogue.models[name].successor}
            logger.warning(what, extra=told)

    def _of_record(self, record: ModelRecord) -> Model:
        deployments, end = record.deployments, record.deprecation
        if self.settings.mock_responses:
            deployments = (DeploymentRecord(provider="demo", model="torana-demo"),)
        configured = tuple(filter(self.vendors.is_reachable, deployments)) or deployments
        family = self.catalogue.families.get(record.families[0]) if record.families else None
        is_text = configured[0].text_completions
        return Model(
            name=record.name,
            families=record.families,
            capabilities=record.abilities,
            stage=record.stage,
            ends_at=self.stages.end_of(record.name),
            announced_at=start_of(end.announced) if end is not None and end.announced is not None else None,
            successor=record.successor,
            input_limit=record.input_limit,
            vocabulary=self._vocabularies.get(f"models {record.name}")
            or (self._vocabularies.get(f"families {record.families[0]}") if record.families else None),
            output_limit=record.output_limit,
            dimensions=record.dimensions,
            params={**record.params, **self.settings.model_params.get(record.name, {})},
            hedge_after_s=record.hedge_after_s,
            fill_in=family.fill_in if family is not None and is_text else "",
            leaks_reasoning=family.leaks_reasoning if family is not None else False,
            folds_system=family.folds_system if family is not None else False,
            deployments=tuple(
                self.vendors.deploy(each, record.prices) for item in configured for each in self.vendors.spread(item)
            ),
        )

    def _own(self, wish: ModelWish) -> Model:
        """A client's own model server, or the operator's model that it names by its provider."""
        named = self._own_servers.read(wish)
        family, deployment = named.family, named.deployment
        return Model(
            name=named.name,
            families=family.variants or (family.name,),
            input_limit=family.input_limit,
            vocabulary=self._vocabularies.get(f"families {family.name}"),
            fill_in=family.fill_in if deployment.as_text_completion else "",
            leaks_reasoning=family.leaks_reasoning,
            folds_system=family.folds_system,
            deployments=(deployment,),
        )
