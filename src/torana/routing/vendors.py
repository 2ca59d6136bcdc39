"""Which vendors can be asked, where and with which key: rows of providers.yml, and the environment over them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from msgspec.structs import replace as replace_members

from torana.catalog.model_records import DeploymentRecord, PriceRecord, ProviderRecord
from torana.errors import BadSetting
from torana.providers.aws_signing import NO_KEYS
from torana.providers.azure import AzureOpenAI, has_responses
from torana.providers.bedrock import NO_REGION
from torana.providers.provider import Deployment
from torana.routing.price_list import PriceList
from torana.setting_values import check_key, check_url
from torana.settings import ProviderSettings, Secret

LIKE = {
    "messages": "anthropic",
    "chat_completions": "openai",
    "responses": "openai",
    "generate_content": "gemini",
    "converse": "bedrock",
    "demo": "demo",
}
"""Whose greeting belongs to a dialect, for rows without a file of their own in providers/."""

CLOUDS = {"aws": "bedrock", "google": "vertex_ai"}
"""Whose greeting it is where a row names a cloud's own way, whatever it speaks."""

OWN_GREETINGS = frozenset({"azure", "bedrock", "vertex_ai"})
"""Rows with one."""

OPENAI_DEFAULT = "gpt-5.4-mini-2026-03-17"
"""What the empty model name of a deployment on OpenAI's own API stands for."""

FIREWORKS = "fireworks_ai"


class Vendors:
    """The rows of one catalogue snapshot, in one environment. Raises BadSetting for an address that is none and
    for a key that cannot be sent; so does `deploy`."""

    def __init__(self, rows: Mapping[str, ProviderRecord], settings: ProviderSettings, prices: PriceList) -> None:
        self.rows = rows
        self.settings = settings
        self.prices = prices
        self._addresses = {row.name: self._find_address(row) for row in rows.values()}
        for name in (name for row in rows.values() for name in row.key_names):
            check_key(name, settings.vendor_keys.get(name, Secret()).reveal())
        self._regions = dict(_read_regions(settings))
        has_keys = bool(settings.aws_access_key_id and settings.aws_secret_access_key)
        self._has_aws_credentials = bool(settings.aws_bearer_token) or has_keys or settings.aws.are_there

    @property
    def has_own_openai(self) -> bool:
        """OPENAI_BASE_URL names another server than OpenAI's own."""
        base = self.settings.openai_base_url
        return bool(base) and "//api.openai.com" not in base

    def is_configured(self, provider: str) -> bool:
        """True where the provider can be greeted: its key is set, or it is a server that needs none."""
        if self.settings.mock_responses:
            return provider == "demo"
        if provider == "anthropic":
            return bool(self.settings.anthropic_api_key)
        if provider == "openai":
            return bool(self.settings.openai_api_key) or self.has_own_openai
        row = self.rows.get(provider)
        if row is None or row.dialect == "demo":
            return provider == "demo"
        if _way_of(row) == "aws":
            return bool(self.settings.aws_region) and self._has_aws_credentials
        if row.auth == "google":
            return bool(self.settings.google.project)
        if not self._addresses[provider]:
            return False
        return bool(self._find_key(row)) or not row.key_names or _is_operators(row)

    def is_reachable(self, record: DeploymentRecord) -> bool:
        """As `is_configured`, for a deployment that may bring a key or an address of its own."""
        if record.key_env and not self.settings.mock_responses:
            return bool(self.settings.vendor_keys.get(record.key_env))
        if record.provider == FIREWORKS and not record.model:
            return bool(self._regions) and self.is_configured(FIREWORKS)
        if record.region and not self.settings.mock_responses and self._is_aws(record.provider):
            return self._has_aws_credentials
        row = self.rows.get(record.provider)
        if record.base_url and row is not None and _is_operators(row) and not self.settings.mock_responses:
            return True
        return self.is_configured(record.provider)

    def lack_of(self, provider: str) -> str:
        """Why a provider cannot be greeted, for the log."""
        if not self._is_aws(provider):
            return f"no credentials for {provider}"
        return NO_KEYS if self.settings.aws_region else NO_REGION

    def _is_aws(self, provider: str) -> bool:
        row = self.rows.get(provider)
        return row is not None and _way_of(row) == "aws"

    def spread(self, record: DeploymentRecord) -> tuple[DeploymentRecord, ...]:
        """The deployments that a record stands for: one, or where it names no model, the operator's own by region."""
        if record.provider != FIREWORKS or record.model or not self._regions:
            return (record,)
        return tuple(
            replace_members(record, model=model, region=region, base_url=address, name="")
            for region, (address, model) in self._regions.items()
        )

    def deploy(self, record: DeploymentRecord, prices: PriceRecord | None = None) -> Deployment:
        """The deployment of a record, with its credentials.

        prices   the model's, for a deployment that has none of its own
        """
        settings = self.settings
        row = self.rows.get(record.provider)
        base_url, secret, model = self._addresses.get(record.provider, ""), Secret(), record.model
        if record.provider == "anthropic":
            base_url, secret = settings.anthropic_base_url or base_url, settings.anthropic_api_key
        elif record.provider == "openai":
            base_url, secret = settings.openai_base_url or base_url, settings.openai_api_key
            if not model:
                # Left empty where the server itself is to be asked (routing/discovery.py).
                model = settings.openai_model or ("" if self.has_own_openai else OPENAI_DEFAULT)
        elif row is not None:
            secret = self._find_key(row)
        if record.key_env:
            secret = settings.vendor_keys.get(record.key_env, Secret())
            check_key(record.key_env, secret.reveal())
        deployment = Deployment(
            provider=record.provider,
            model=model,
            label=record.name,
            base_url=record.base_url or base_url,
            secret=secret,
            is_configured=self.is_reachable(record),
            region=record.region or self._home_of(row),
            account=record.account,
            weight=record.weight,
            order=record.order,
            concurrency=record.concurrency,
            canary_percent=record.canary_percent,
            shadow_percent=record.shadow_percent,
            timeout_s=record.timeout_s,
            idle_s=record.idle_s,
            # Another server than OpenAI's own has prices of its own, whatever it calls its models.
            prices=self.prices.find(
                record, "" if record.provider == "openai" and self.has_own_openai else model, prices
            ),
            as_text_completion=record.text_completions,
        )
        return self.dress(deployment, record.provider)

    def dress(self, deployment: Deployment, provider: str) -> Deployment:
        """The deployment with the manners of the provider's row."""
        row = self.rows.get(provider)
        if row is None:
            return deployment
        like = row.name if row.name in OWN_GREETINGS else deployment.like or _like(row)
        if deployment.is_client_given:
            # Where it is asked, and how code around a cursor is, contract 10.2 says; our headers are not for others.
            return replace(deployment, like=like, auth=row.auth or "", quirks=replace_members(row.quirks, suffix=False))
        # What a vendor's own address speaks, another server in its place need not.
        if row.name == AzureOpenAI.name:
            has_also = has_responses(deployment.base_url, deployment.model, self.settings.azure_api_version)
        else:
            has_also = deployment.base_url == (row.base_url or self._addresses[row.name])
        return replace(
            deployment,
            like=like,
            dialect=row.dialect,
            also=row.also if has_also else (),
            auth=_way_of(row),
            paths=row.paths,
            quirks=row.quirks,
            extra_headers={**row.headers, **deployment.extra_headers},
        )

    def _home_of(self, row: ProviderRecord | None) -> str:
        """The region where a cloud is asked when nobody names one."""
        return self.settings.google.model_location if row is not None and row.auth == "google" else ""

    def _find_address(self, row: ProviderRecord) -> str:
        for name in row.base_url_env:
            if address := self.settings.vendor_urls.get(name, ""):
                # Ollama's own name for it holds a host and a port alone.
                address = address if "://" in address else f"http://{address}"
                check_url(name, address, is_base=True, is_azures=row.name == AzureOpenAI.name)
                return address.rstrip("/")
        return row.base_url

    def _find_key(self, row: ProviderRecord) -> Secret:
        keys = self.settings.vendor_keys
        return next((keys[name] for name in row.key_names if keys.get(name)), Secret())


def _is_operators(row: ProviderRecord) -> bool:
    """Whether it is a server of the operator's own, which is there where it has an address, and may need no key."""
    return not row.base_url and row.dialect != "demo" and _way_of(row) not in CLOUDS


def _way_of(row: ProviderRecord) -> str:
    """How it wants to be told who calls; empty: as the vendor that it is like."""
    return row.auth or ("aws" if row.dialect == "converse" else "")


def _like(row: ProviderRecord) -> str:
    return CLOUDS.get(_way_of(row)) or LIKE[row.dialect]


def _read_regions(settings: ProviderSettings) -> Iterator[tuple[str, tuple[str, str]]]:
    """Region → address and model of Fireworks' regional deployments; raises BadSetting."""
    name = "AIGW_MODEL_ENDPOINTS__FIREWORKS_REGIONAL_ENDPOINTS"
    for region, told in settings.fireworks_regions.items():
        address = told.get("endpoint") if isinstance(told, dict) else None
        model = told.get("identifier") if isinstance(told, dict) else None
        if not isinstance(address, str) or not isinstance(model, str) or not model:
            raise BadSetting(name, f"{region!r} lacks a text", 'expected {"region": {"endpoint": …, "identifier": …}}')
        check_url(name, address, is_base=True)
        yield str(region), (address.rstrip("/"), model.removeprefix(f"{FIREWORKS}/"))
