"""Whom the gateway believes, and what it lets them do."""

from dataclasses import dataclass
from typing import Any

from torana.setting_values import Secret, setting

MINTABLE = ("complete_code", "ai_gateway_model_provider_proxy")
"""All that a user token may hold, by contract 5."""
MAX_USER_TOKEN_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Whom the gateway believes."""

    service_name: str = setting(
        "gitlab-ai-gateway",
        ("AIGW_CLOUD_CONNECTOR_SERVICE_NAME", "CLOUD_CONNECTOR_SERVICE_NAME"),
        "audience of tokens and our own issuer name",
    )
    gitlab_url: str = setting("https://gitlab.com", "AIGW_GITLAB_URL", "first OIDC issuer base")
    gitlab_api_url: str = setting("https://gitlab.com/api/v4/", "AIGW_GITLAB_API_URL", "API base of that instance")
    customer_portal_url: str = setting(
        "https://customers.gitlab.com", "AIGW_CUSTOMER_PORTAL_URL", "second OIDC issuer base"
    )
    signing_key: Secret = setting(Secret(), "AIGW_SELF_SIGNED_JWT__SIGNING_KEY", "PEM; signs user tokens")
    validation_key: Secret = setting(Secret(), "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY", "PEM; accepted, never signs")
    bypass_external: bool = setting(False, "AIGW_AUTH__BYPASS_EXTERNAL", "every request passes with all rights")
    bypass_with_header: bool = setting(
        False, "AIGW_AUTH__BYPASS_EXTERNAL_WITH_HEADER", "requests with Bypass-Auth: true pass"
    )
    bypass_jwt_signature: bool = setting(False, "AIGW_AUTH__BYPASS_JWT_SIGNATURE", "signatures are not checked")
    leeway_s: float = setting(60.0, "AIGW_AUTH__LEEWAY_S", "clock leeway")
    key_ttl_s: float = setting(3600.0, "AIGW_AUTH__KEY_TTL_S", "age at which issuers' keys are refreshed")
    key_refetch_s: float = setting(
        30.0, "AIGW_AUTH__KEY_REFETCH_S", "shortest time between refetches for an unknown key"
    )
    key_stale_s: float = setting(86400.0, "AIGW_AUTH__KEY_STALE_S", "how long stale keys serve")
    issuers: tuple[str, ...] = setting((), "AIGW_AUTH__ISSUERS", "allow-list of iss; empty: any")
    issuer_hosts: tuple[str, ...] = setting((), "AIGW_AUTH__ISSUER_HOSTS", "further hosts where jwks_uri may live")
    failures_per_minute: int = setting(
        50,
        "AIGW_AUTH__FAILURES_PER_MINUTE",
        "refused tokens per client address (IPv6: /64) before no more cryptography; 0: no bound",
    )
    mint_per_minute: int = setting(600, "AIGW_AUTH__MINT_PER_MINUTE", "tokens minted per instance; 0: no bound")
    operator_token: Secret = setting(
        Secret(), "AIGW_OPERATOR_TOKEN", "opens dry runs (X-Torana-Dry-Run) to whoever sends it; 16 characters or more"
    )
    user_token_lifetime_s: float = setting(
        3600.0, "AIGW_USER_TOKEN__LIFETIME_S", "lifetime of user tokens, 60 to 3600 s"
    )
    user_token_unit_primitives: tuple[str, ...] = setting(
        (),
        "AIGW_USER_TOKEN__UNIT_PRIMITIVES",
        "unit primitives that user tokens may hold; empty: complete_code and ai_gateway_model_provider_proxy",
    )
    user_token_region: str = setting(
        "",
        "AIGW_USER_TOKEN__REGION",
        "region that user tokens are bound to; a gateway of another region, or of none, refuses them",
    )
    require_instance_uid: bool = setting(
        False,
        "AIGW_PROXY_ENDPOINTS__REQUIRE_INSTANCE_UID",
        "proxies refuse self-managed tokens without gitlab_instance_uid",
    )
    proxy_self_managed: tuple[str, ...] = setting(
        (), "AIGW_PROXY_ENDPOINTS__SELF_MANAGED_ENABLED", "instance uids that may use the proxies; empty: all"
    )
    proxy_saas: tuple[str, ...] = setting(
        (), "AIGW_PROXY_ENDPOINTS__SAAS_ENABLED", "root namespace ids that may use the proxies; empty: all"
    )
    classic_only: bool = setting(
        False, "AIGW_DUO_CHAT__CLASSIC_ONLY", "v2 chat asks for duo_classic_chat (contract 7.1)"
    )
    disallowed_flags: dict[str, Any] = setting(
        {}, "AIGW_FEATURE_FLAGS__DISALLOWED_FLAGS", "JSON: realm → list of feature flags that are ignored"
    )
    portal_user: str = setting(
        "",
        ("AIGW_CUSTOMERSDOT__API_USER", "CUSTOMER_PORTAL_USAGE_QUOTA_API_USER"),
        "portal credentials; set both to switch the usage quota on",
    )
    portal_token: Secret = setting(
        Secret(), ("AIGW_CUSTOMERSDOT__API_TOKEN", "CUSTOMER_PORTAL_USAGE_QUOTA_API_TOKEN"), "portal credentials"
    )
