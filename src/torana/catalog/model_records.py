"""What `models.yml` and `providers.yml` may hold: vendors, models, and who serves them where."""

from typing import Annotated, Any, Literal

import msgspec

from torana.catalog.records import Capability, Record, Seconds

Dialect = Literal["messages", "chat_completions", "responses", "generate_content", "converse", "demo"]
"""Wire formats."""

Auth = Literal["bearer", "x-api-key", "api-key", "aws", "google", "none"]
"""How a provider wants to be told who calls: a key in one of three headers, a cloud's own way, or nothing."""

Stage = Literal["registered", "staging", "production", "deprecated"]
"""How far a model has come: known only; usable by name; in defaults and menus; on its way out."""

# `description` is what `torana check` says was expected.
Price = Annotated[
    str, msgspec.Meta(pattern=r"^([0-9]{1,9}(\.[0-9]{1,9})?)?\Z", description='US dollars as text, such as "3.75"')
]
Times = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]{1,4}(\.[0-9]{1,9})?\Z", description='a number as text, such as "0.5"')
]
Day = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", description="a day as YYYY-MM-DD")]
Count = Annotated[int, msgspec.Meta(ge=0, description="a whole number from 0 on")]
Some = Annotated[int, msgspec.Meta(ge=1, description="a whole number from 1 on")]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100, description="a number from 0 to 100")]


class Quirks(Record, frozen=True, kw_only=True):
    """Where a vendor differs from the chat completions or text completions it speaks.

    What it does not take is left out, or said in its own way, instead of being refused.
    """

    limit: Literal["max_tokens", "max_completion_tokens"] | None = None
    """What it calls the longest answer; empty: as the model's name tells."""
    extras: bool = True
    """Passes over members that it does not know; false: it refuses them, so those whose loss changes no answer are
    left out."""
    usage_option: bool = True
    """Takes `stream_options`; false: it tells the usage of a stream unasked."""
    done: bool = True
    """Ends its streams with `[DONE]`; false: just ends them, and one whose choices have all told why they finished is
    whole."""
    user: bool = True
    """Takes `user`."""
    forced_tool: Literal["required", "any", "never"] = "required"
    """Its word for "call some tool"; `never`: it cannot be made to."""
    named_tool: bool = True
    """`tool_choice` may name the tool to call."""
    parallel_tools: bool = True
    """Takes `parallel_tool_calls`."""
    strict_tools: bool = True
    """Takes `strict` of a tool."""
    answer_schema: bool = True
    """Takes `response_format` of type `json_schema`; false: `json_object` alone."""
    reasoning: Literal["effort", "high", "thinking", "none"] = "effort"
    """How it is asked to think: `reasoning_effort`; that, `high` or `none` alone, of Mistral's models that know it; a
    member `thinking` beside it, and then never while it is forced to call a tool; or not at all."""
    no_effort: bool = False
    """`reasoning_effort: none` keeps its models from thinking; false: the least effort is asked for."""
    thoughts: Literal["reasoning_content", "reasoning", "none"] = "reasoning_content"
    """The member in which it takes its own thoughts back."""
    thinks_with_tools: bool = True
    """Its models think beside tools; false: OpenAI's newer ones do so in `responses` alone, and are asked in it where
    `also` names it; where it does not, they are kept from thinking."""
    top_k: bool = False
    """Takes `top_k`."""
    call_id_chars: Annotated[int, msgspec.Meta(ge=0, le=64, description="a whole number from 0 to 64")] = 0
    """Ids of tool calls are exactly so many letters and digits; 0: any."""
    user_behind_results: bool = True
    """A user may speak right behind results of tools; false: the assistant has to say something first."""
    begun_answer: Literal["as_it_is", "prefix"] = "as_it_is"
    """How a last message of the assistant's is told that is to be carried on: `prefix` marks it as one."""
    seed: Literal["seed", "random_seed"] = "seed"
    """What it calls the seed."""
    suffix: bool = False
    """Text completions take the code behind the cursor as `suffix`, and no markers."""
    affinity_header: str = "x-session-affinity"
    """Header that keeps a user's calls on one machine, and its prompt cache warm; empty: none."""


class ProviderRecord(Record, frozen=True, kw_only=True):
    """`providers.yml`, one item: a vendor or server that speaks a known dialect."""

    name: str
    dialect: Dialect
    also: tuple[Literal["messages", "chat_completions", "responses"], ...] = ()
    """Further dialects that its own address speaks, each at the dialect's usual path. A client of one of them is
    answered in it, byte for byte; everybody else in `dialect` (but see `thinks_with_tools`)."""
    title: str = ""
    base_url: str = ""
    """With or without the final /v1."""
    base_url_env: tuple[str, ...] = ()
    """Environment names that win over `base_url`, the first one that is set: `…_BASE_URL`, `…_API_BASE`,
    `…_ENDPOINT`, `…_HOST`. A row without `base_url` is a server of the operator's own: its address says that it is
    there, and a key is sent where one is set."""
    key_env: str | tuple[str, ...] = ""
    """Environment name of the key, `…_API_KEY`, or several: the first one that is set."""
    auth: Auth | None = None
    """Empty: as the dialect's own vendor has it."""
    headers: dict[str, str] = {}
    """Sent with every call, beside the credentials."""
    paths: dict[str, str] = {}
    """What is asked (`chat`, `completions`, `responses`, `embeddings`, `models`) → path below `base_url`, where it is
    not the dialect's own."""
    quirks: Quirks = Quirks()
    """Where the vendor differs from its dialect."""

    @property
    def key_names(self) -> tuple[str, ...]:
        names = (self.key_env,) if isinstance(self.key_env, str) else self.key_env
        return tuple(name for name in names if name)


class PriceFigures(Record, frozen=True, kw_only=True):
    """US dollars per million tokens. Empty is unknown, never free."""

    input: Price = ""
    output: Price = ""
    cache_read: Price = ""
    """Input tokens that came out of the provider's prompt cache."""
    cache_write: Price = ""
    """Input tokens that were put into it."""
    cache_write_1h: Price = ""
    """Those of them that it is to keep for an hour."""


class LongPrice(PriceFigures, frozen=True, kw_only=True):
    """What a call with a long prompt costs, all its tokens; what is empty is unknown."""

    over: Some
    """Tokens of input, cached ones included."""


class PriceTerms(PriceFigures, frozen=True, kw_only=True):
    """What holds for a time."""

    long: LongPrice | None = None
    """Of calls whose prompt is longer than a vendor's line for it."""
    times: dict[str, Times] = {}
    """Tier → how many times the figures a call in it costs: `{flex: "0.5", priority: "2"}`. Tiers are told by the
    provider's answer (`fast`, `priority`, `flex` …; of Anthropic also the place, `us`); one that is not named here
    makes the cost unknown."""


class LaterPrice(PriceTerms, frozen=True, kw_only=True):
    """What a model costs from a day on; all figures anew."""

    since: Day
    """The first day (UTC) that has them."""


class PriceRecord(PriceTerms, frozen=True, kw_only=True):
    """What a model costs, in US dollars per million tokens. Empty is unknown, never free."""

    as_of: Day
    """The day on which the prices were read."""
    source: str = ""
    """Where they were read."""
    later: tuple[LaterPrice, ...] = ()
    """Changes that the vendor has announced, in the order of their days."""


class DeploymentRecord(Record, frozen=True, kw_only=True):
    """A model at one provider, region and account; what a call is sent to."""

    name: str = ""
    """Empty: `provider/model`, with `/region` behind it where there is one."""
    provider: str
    model: str
    """The provider's own name of the model."""
    region: str = ""
    account: str = ""
    """Whose account pays: a project, a subscription, or just a word for it."""
    text_completions: bool = False
    """The deployment answers POST …/completions and knows the family's fill-in-the-middle markers."""
    weight: Count = 1
    """Its share among deployments of the same `order`."""
    order: Count = 0
    """Lower ones are tried first."""
    concurrency: Count = 0
    """Calls at the same time; 0: no bound."""
    canary_percent: Percent = 0.0
    """Share of calls that try it first, the same callers every time."""
    shadow_percent: Percent = 0.0
    """Share of calls that are sent here as well, and whose answers nobody sees."""
    timeout_s: Seconds = 0.0
    """Patience for the first byte; 0: AIGW_TIMEOUTS__FIRST_BYTE_S."""
    idle_s: Seconds = 0.0
    """Silence within an answer; 0: AIGW_TIMEOUTS__IDLE_S."""
    base_url: str = ""
    """Instead of the provider's."""
    key_env: str = ""
    """Instead of the provider's."""
    prices: PriceRecord | None = None
    """Instead of the model's, whole."""

    @property
    def label(self) -> str:
        """What the deployment is called where it has no name of its own."""
        return self.name or "/".join(part for part in (self.provider, self.model, self.region) if part)


class Deprecation(Record, frozen=True, kw_only=True):
    deprecation_date: Day
    """The model serves until this day begins (UTC)."""
    announced: Day | None = None
    """The day on which its end was made known."""
    removal_version: str = ""
    """The product's version that no longer offers it, shown to administrators."""


class ModelRecord(Record, frozen=True, kw_only=True):
    """`models.yml`, member `models`: what clients may choose by `name`, the catalogue identifier."""

    name: str
    title: str
    vendor: str = ""
    """Shown behind the title in the model catalogue, ` - <vendor>`."""
    families: tuple[str, ...] = ()
    """Prompt variants to look for, best first; `base` is always last."""
    capabilities: tuple[Capability, ...] = ()
    """What features may ask of it; empty: `embeddings` where it has `dimensions`, else `chat` and `stream`."""
    input_limit: Some = 200_000
    """Tokens that it reads, the context window."""
    output_limit: Count = 8_192
    """Tokens that it writes at most."""
    tokenizer: str = ""
    """Its `tokenizer.json`, by which code is cut to `input_limit` exactly; relative to this file's directory. Needs the
    extra `[tokenizers]`. Empty: that of its first family, else tokens are estimated."""
    dimensions: Count = 0
    """Length of its vectors where it makes embeddings; 0: it answers in text."""
    params: dict[str, Any] = {}
    """Defaults of model parameters; the prompt file's win over them."""
    hedge_after_s: Seconds = 0.0
    """Silence before the first chunk after which a second deployment is asked as well, and the faster one answers; 0:
    never. Both may be charged."""
    description: str = ""
    cost_indicator: str = ""
    prices: PriceRecord | None = None
    """Unknown where there is none."""
    stage: Stage = "production"
    """Of a deprecated model `deprecation` and `successor` are required."""
    deprecation: Deprecation | None = None
    """When it ends."""
    successor: str = ""
    """The model that answers from that day on, under the old name too."""
    is_beta: bool = False
    is_listed: bool = True
    """False: usable by aliases, not shown in /v1/models/definitions."""
    deployments: tuple[DeploymentRecord, ...]

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset(self.capabilities or (("embeddings",) if self.dimensions else ("chat", "stream")))


class AliasRecord(Record, frozen=True, kw_only=True):
    """`models.yml`, member `aliases`: a role that features ask for."""

    name: str
    models: tuple[str, ...]
    """Names of models, in order; the first one with a configured provider answers."""


class ClientNameRecord(Record, frozen=True, kw_only=True):
    """`models.yml`, member `client_names`: names that clients send, retired ones included (contract 6.1)."""

    name: str
    """`<model_provider>/<model_name>` as the client sends them; `gitlab/<identifier>` for `model_metadata`."""
    model: str
    """An alias or a model."""


class FeatureSettingRecord(Record, frozen=True, kw_only=True):
    """`models.yml`, member `feature_settings`: contract 11 and unit-primitives 9."""

    name: str
    default: str
    """An alias or a model."""
    selectable: tuple[str, ...] = ()
    """Models offered for it; empty: every listed one that can do what its features ask for."""
    dev: tuple[str, ...] = ()
    """Models offered to the product's own developers only; these may be in stage staging."""
    tags: dict[str, str | tuple[str, ...]] = {}
    """Tag → model or models, handed on as `models_for_tags`."""
    size_preference: dict[str, str | tuple[str, ...]] = {}
    """Size → model or models, handed on as `models_for_size_preference`."""
    unit_primitives: tuple[str, ...] = ()


class ProxyModelsRecord(Record, frozen=True, kw_only=True):
    """`models.yml`, member `proxy_models`: what the pass-through lets by (contract 9)."""

    name: Literal["anthropic", "openai", "vertex-ai"]
    """The proxy's provider."""
    exact: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


class FamilyRecord(Record, frozen=True, kw_only=True):
    """`models.yml`, member `families`: self-hosted model families (contract 10.4)."""

    name: str
    variants: tuple[str, ...] = ()
    """Prompt variants to look for; empty: the family's own name."""
    input_limit: Some = 32_768
    tokenizer: str = ""
    """The family's `tokenizer.json`; otherwise as a model's."""
    fill_in: Literal["codegemma", "codellama", "codestral", "deepseek", "qwen", ""] = ""
    """Whose markers stand around the cursor, where it fills in the middle; empty: an instruction prompt."""
    leaks_reasoning: bool = False
    """Answers may begin with a `<think>` or `<reasoning>` block that is to be removed, also where a chat template has
    begun it: of whole answers, and of streams of models that are known by their names to do so."""
    folds_system: bool = False
    """Its chat templates refuse a system turn: that text goes to the head of the first user turn."""


class ResidencyRecord(Record, frozen=True, kw_only=True):
    """`models.yml`, member `residency`: the regions that a caller's calls never leave.

    With `instance` it holds for that one and stands in place of the others; with `realm` for all of that realm; with
    neither for everybody.
    """

    name: str
    instance: str = ""
    """The instance's id or uid, as vouched for."""
    realm: str = ""
    regions: tuple[str, ...]
    """As deployments name them; `eu-*` stands for all that begin so."""


class ModelsFile(Record, frozen=True, kw_only=True):
    models: tuple[ModelRecord, ...] = ()
    aliases: tuple[AliasRecord, ...] = ()
    client_names: tuple[ClientNameRecord, ...] = ()
    feature_settings: tuple[FeatureSettingRecord, ...] = ()
    proxy_models: tuple[ProxyModelsRecord, ...] = ()
    families: tuple[FamilyRecord, ...] = ()
    residency: tuple[ResidencyRecord, ...] = ()
