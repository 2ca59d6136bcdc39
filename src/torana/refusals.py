"""Every refusal code: which layer says no, what it means, what to do. `torana error` prints this.

The names are stable: clients' scripts and operators' dashboards match on them. A new `Refusal`
anywhere needs its row here; the entrance takes layer, remedy and retryable from it.
"""

from typing import Any

from torana.errors import Code, Refusal

CODES: dict[str, Code] = {
    # 401: who is calling
    "token_missing": Code(
        "client",
        "The request has no Authorization header.",
        "Send `Authorization: Bearer <token>`; `torana token` prints one for a test. Vendors' SDKs and coding agents "
        "are served below /openai/v1 and /anthropic.",
    ),
    "authorization_scheme": Code(
        "client",
        "The Authorization header is not of the scheme Bearer.",
        "Send `Authorization: Bearer <token>`.",
    ),
    "authentication_type": Code(
        "client",
        "The header X-Gitlab-Authentication-Type is missing or is not `oidc`.",
        "Send `X-Gitlab-Authentication-Type: oidc`. Vendors' SDKs and coding agents, which do not, are served below "
        "/openai/v1 and /anthropic.",
    ),
    "token_malformed": Code(
        "instance_token",
        "The token is no signed JWT in compact form, or a claim in it has an impossible value.",
        "Run `torana token inspect` on it; fetch a fresh token from the instance.",
    ),
    "token_header_refused": Code(
        "instance_token",
        "The token's header holds a member that could choose its own key or change how it is read.",
        "Issue tokens without crit, jku, x5u, x5c, jwk, zip and b64.",
    ),
    "token_too_large": Code(
        "instance_token", "The token is larger than 8 KiB.", "Issue smaller tokens; leave out claims nobody reads."
    ),
    "token_algorithm": Code(
        "instance_token", "The token is not signed with RS256.", "Sign tokens with RS256; nothing else is accepted."
    ),
    "token_signature": Code(
        "instance_token",
        "No key that may sign for the token's issuer verifies its signature.",
        "Check AIGW_GITLAB_URL and AIGW_CUSTOMER_PORTAL_URL, and the issuers in /readyz on the metrics port.",
    ),
    "token_expired": Code(
        "instance_token", "The token's `exp` has passed.", "Fetch a fresh token; compare the clocks of both machines."
    ),
    "token_not_yet_valid": Code(
        "instance_token",
        "The token's `nbf` lies in the future.",
        "Compare the clocks of both machines; AIGW_AUTH__LEEWAY_S is the tolerated difference.",
    ),
    "token_audience": Code(
        "instance_token",
        "The token's `aud` does not name this service.",
        "Issue the token for the name in AIGW_CLOUD_CONNECTOR_SERVICE_NAME.",
    ),
    "token_issuer": Code(
        "instance_token",
        "The token's `iss` is not on the allow-list.",
        "Add the issuer to AIGW_AUTH__ISSUERS, or leave that setting empty.",
    ),
    "token_revoked": Code(
        "instance_token",
        "The token, its user or its instance is on the deny list.",
        "Remove the record from deny.yml and reload, if the caller is to come back.",
    ),
    "auth_failures_exceeded": Code(
        "client",
        "Too many refused tokens came from this address within a minute; unknown tokens are not looked at.",
        "Wait a minute. Behind a load balancer, name it in AIGW_TRUSTED_PROXIES; "
        "AIGW_AUTH__FAILURES_PER_MINUTE is the limit.",
        is_retryable=True,
    ),
    "keys_unavailable": Code(
        "gateway",
        "No key to verify tokens with could be fetched yet, and none is configured.",
        "Check that the gateway reaches AIGW_GITLAB_URL and AIGW_CUSTOMER_PORTAL_URL; /readyz names the cause.",
        is_retryable=True,
    ),
    "header_mismatch": Code(
        "header_match",
        "A header disagrees with the token's claim.",
        "Send the headers that were handed out together with the token, unchanged.",
    ),
    "header_repeated": Code(
        "client",
        "A header that says who calls came several times, with different values.",
        "Send it once; look for a proxy in between that adds its own.",
    ),
    "token_region": Code(
        "user_token",
        "The user token is bound to a region, and this gateway is not of it.",
        "Send the user to the gateway of that region; AIGW_USER_TOKEN__REGION names this one's.",
    ),
    # 400, 402, 403: what the caller may do
    "operator_token_required": Code(
        "client",
        "The request asks for a dry run without the operator's token.",
        "Send AIGW_OPERATOR_TOKEN's value as X-Torana-Operator-Token, or leave X-Torana-Dry-Run out; a gateway without "
        "that setting makes no dry runs.",
    ),
    "dry_run_unavailable": Code(
        "client",
        "The request asks for a dry run of an endpoint that calls no model.",
        "Leave X-Torana-Dry-Run out; only endpoints that call models have decisions to show.",
    ),
    "unit_primitive_missing": Code(
        "unit_primitive",
        "The token's scopes do not hold the unit primitive that this endpoint needs.",
        "Have the instance grant it (seat, add-on), then fetch a fresh token.",
    ),
    "unit_primitive_header_missing": Code(
        "unit_primitive",
        "Proxy requests name their unit primitive in X-Gitlab-Unit-Primitive; the header is missing.",
        "Send X-Gitlab-Unit-Primitive, such as `ai_gateway_model_provider_proxy`.",
    ),
    "unit_primitive_unknown": Code(
        "unit_primitive",
        "The catalogue has no unit primitive of this name.",
        "Check the spelling; add the name to unit_primitives.yml if it is new.",
    ),
    "unit_primitive_not_for_proxy": Code(
        "unit_primitive",
        "This unit primitive may not be used on the provider proxies.",
        "Use the feature's own endpoint, or `ai_gateway_model_provider_proxy`.",
    ),
    "user_token_not_accepted": Code(
        "user_token",
        "This endpoint takes instance tokens only; the token is a user's.",
        "Call it through the instance instead of directly.",
    ),
    "realm_not_enabled": Code(
        "unit_primitive",
        "The operator opened the proxies for certain namespaces or instances only; this is none of them.",
        "Add it to AIGW_PROXY_ENDPOINTS__SAAS_ENABLED or AIGW_PROXY_ENDPOINTS__SELF_MANAGED_ENABLED.",
    ),
    "instance_uid_mismatch": Code(
        "header_match",
        "The claim gitlab_instance_uid and the instance's headers disagree, or a required claim is absent.",
        "Send the headers that were handed out together with the token, unchanged.",
    ),
    "project_id_mismatch": Code(
        "header_match",
        "X-Gitlab-Project-Id disagrees with the token.",
        "Send the headers that were handed out together with the token, unchanged.",
    ),
    "namespace_id_mismatch": Code(
        "header_match",
        "X-Gitlab-Namespace-Id disagrees with the token.",
        "Send the headers that were handed out together with the token, unchanged.",
    ),
    "root_namespace_id_mismatch": Code(
        "header_match",
        "X-Gitlab-Root-Namespace-Id disagrees with the token.",
        "Send the headers that were handed out together with the token, unchanged.",
    ),
    "mint_header_missing": Code(
        "client",
        "A user token needs a user, an instance and a realm; neither claims nor headers name one of them.",
        "Send the header that the answer names.",
    ),
    "mint_limit": Code(
        "limit",
        "This instance asked for more user tokens than AIGW_AUTH__MINT_PER_MINUTE allows.",
        "Keep a user's token until it expires; wait as long as Retry-After says.",
        is_retryable=True,
    ),
    "mint_key_unavailable": Code(
        "gateway",
        "The gateway has no usable signing key, so it cannot make user tokens.",
        "Set AIGW_SELF_SIGNED_JWT__SIGNING_KEY; `torana keys new` makes a key, the log says what is wrong with one.",
    ),
    "insufficient_credits": Code("quota", "The portal says that the credits are used up.", "Buy credits, or wait."),
    "not_entitled": Code(
        "quota", "The portal says that this consumer is not entitled.", "Check the subscription in the portal."
    ),
    "quota_unavailable": Code(
        "quota",
        "The portal did not answer the quota check, so the call is refused.",
        "Check that the gateway reaches AIGW_CUSTOMER_PORTAL_URL and that its credentials are right.",
        is_retryable=True,
    ),
    "custom_models_disabled": Code(
        "gateway",
        "The request names a model server of its own, and the operator has not allowed that.",
        "Set AIGW_CUSTOM_MODELS__ENABLED=true.",
    ),
    "endpoint_not_allowed": Code(
        "gateway",
        "The model server that the request names is not on the operator's allow-list, or never allowed.",
        "Add its URL prefix to AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS; link-local addresses stay refused.",
    ),
    "residency_refused": Code(
        "gateway",
        "Every deployment that could answer lies outside the regions that `residency` allows this instance or realm.",
        "Add a deployment in an allowed region to the model, give deployments their `region`, or extend the rule in "
        "models.yml.",
    ),
    # The request itself
    "request_invalid": Code(
        "client", "A member of the body is not what it should be.", "Correct the member that `missing` names."
    ),
    "dialect_loss": Code(
        "client",
        "The format of the model behind this name cannot say all that the request says.",
        "Leave out what `missing` names, or ask a model whose vendor speaks your client's format.",
    ),
    "json_invalid": Code("client", "The body is no JSON object.", "Send one JSON object in UTF-8."),
    "member_repeated": Code(
        "client",
        "A member that the gateway judges a request by, such as `model`, stands in the body twice.",
        "Send it once; `missing` names it.",
    ),
    "not_found": Code(
        "client", "Nothing is served under this path.", "Check the path and the base URL: no slash at its end."
    ),
    "method_not_allowed": Code(
        "client", "The path does not answer this method.", "Use one that the header Allow names."
    ),
    "cors_method": Code("client", "A CORS pre-flight asked for another method than POST.", "Use POST from a browser."),
    "body_too_large": Code(
        "client",
        "The body is over its size limit.",
        "Send less, or raise AIGW_MAX_BODY_BYTES, AIGW_MAX_PROXY_BODY_BYTES or AIGW_MAX_MINT_BODY_BYTES.",
    ),
    "body_too_slow": Code(
        "client",
        "The body stopped coming in.",
        "Send it without a pause; AIGW_SERVER__BODY_TIMEOUT_S is the patience.",
        is_retryable=True,
    ),
    "body_malformed": Code(
        "client", "The body is no HTTP: its chunks are not what they say.", "Look at what stands between."
    ),
    "headers_too_large": Code(
        "client", "The header block is over its size limit.", "Send less, or raise AIGW_MAX_HEADER_BYTES."
    ),
    "uri_too_long": Code(
        "client", "The request target is over its size limit.", "Send less, or raise AIGW_MAX_URI_BYTES."
    ),
    "loop_detected": Code(
        "gateway",
        "The request already went through this gateway: a provider's base URL points back at it.",
        "Correct the provider's base URL, such as OPENAI_BASE_URL.",
    ),
    "model_missing": Code("client", "The body names no model.", "Send the member `model`."),
    "model_unsupported": Code(
        "client",
        "The model is not known here, or not allowed on this path.",
        "Use a listed model, or extend `proxy_models` in models.yml.",
    ),
    "model_not_found": Code(
        "client",
        "No model of this name is served here.",
        "Ask for one that GET /openai/v1/models lists; `torana models list` shows them all.",
    ),
    "prompt_not_found": Code("client", "No prompt has this id.", "`torana prompts list` shows the ids."),
    "prompt_version_unmatched": Code(
        "client",
        "The prompt has no version that the constraint allows.",
        "`torana prompts list` shows those that it has.",
    ),
    "docs_release_missing": Code(
        "gateway",
        "The documentation index holds neither the version of the instance nor the fallback version, or there is none.",
        "`torana docs index` adds it to the file of AIGW_DOCS_SEARCH__INDEX; or name one that is there in "
        "AIGW_VERTEX_SEARCH__FALLBACK_DATASTORE_VERSION.",
    ),
    "docs_search_failed": Code(
        "gateway",
        "The documentation index cannot be read.",
        "Build it anew with `torana docs index`; the gateway's log says what is wrong with AIGW_DOCS_SEARCH__INDEX.",
    ),
    "scratchpad_misplaced": Code(
        "client",
        "A message that is not the assistant's carries an agent scratchpad.",
        "Send the scratchpad with assistant messages, or in `options`.",
    ),
    "amazon_q_unavailable": Code(
        "gateway", "Amazon Q has no public API, so this gateway does not serve it.", "Choose another model provider."
    ),
    # Limits of our own
    "limit_reached": Code(
        "limit",
        "A limit that the operator of this gateway set (limits.yml) is used up for now.",
        "Wait as long as Retry-After says; `missing` names the limit. The operator may raise it.",
        is_retryable=True,
    ),
    "limits_unavailable": Code(
        "limit",
        "A limit is shared by all servers and must not be guessed (`when_down: closed`), and Redis cannot be reached.",
        "Try again shortly. The operator finds the cause in the log and under AIGW_REDIS_URL.",
        is_retryable=True,
    ),
    "overloaded": Code(
        "gateway",
        "The gateway has more to do than it can, or the model's deployment has no place left; nothing was sent.",
        "Ask again later. Operators: more --workers or replicas; where a deployment is full (`no_room`), more "
        "`concurrency` or AIGW_ROUTING__CONNECTIONS.",
        is_retryable=True,
    ),
    "server_draining": Code(
        "gateway", "This process is shutting down.", "Try again; another replica answers.", is_retryable=True
    ),
    "worker_killed": Code(
        "gateway",
        "The worker that was answering was killed. Only usage records say so, for calls that it left behind.",
        "Operators: look for what killed it, such as the out-of-memory killer; the supervisor started another one.",
        is_retryable=True,
    ),
    "usage_spool_full": Code(
        "gateway",
        "Usage records cannot be written, and the operator wants none lost.",
        "Operators: make room below AIGW_USAGE__SPOOL_DIR, let this user write there, or look at its sinks; "
        "AIGW_USAGE__WHEN_FULL=continue answers all the same.",
        is_retryable=True,
    ),
    "internal": Code(
        "gateway", "The gateway failed in a way nobody planned for.", "Look for the request id in the gateway's log."
    ),
    # The model's side
    "provider_key_missing": Code(
        "gateway", "No key is configured for this provider.", "Operators: set what `missing` names."
    ),
    "provider_failed": Code("provider", "The model call failed.", "Look for the request id in the gateway's log."),
    "provider_unreachable": Code(
        "provider",
        "No connection to the provider could be made.",
        "Check the provider's base URL, DNS and the way out.",
        is_retryable=True,
    ),
    "provider_resting": Code(
        "provider",
        "The provider failed too often within the last seconds and is left alone for a moment; nothing was sent.",
        "Wait as long as Retry-After says. AIGW_ROUTING__FAILURES_TO_REST and AIGW_ROUTING__REST_S are the bounds.",
        is_retryable=True,
    ),
    "upstream_tls": Code(
        "provider",
        "TLS to the provider failed; an unverified connection is never used instead.",
        "The access line says why (`provider_reason`). A private authority: AIGW_EXTRA_CA. A certificate of ours: "
        "AIGW_MTLS__CERT_FILE.",
    ),
    "provider_timeout": Code(
        "provider",
        "The provider kept silent for too long.",
        "Try again; AIGW_TIMEOUTS__FIRST_BYTE_S and AIGW_TIMEOUTS__IDLE_S are the patience.",
        is_retryable=True,
    ),
    "provider_broke": Code(
        "provider", "The provider's answer was cut or is no answer at all.", "Try again.", is_retryable=True
    ),
    "provider_no_credentials": Code(
        "provider",
        "No credentials are configured for the chosen model's provider, or none can be fetched.",
        "Operators: `torana models show NAME` names the provider, docs/reference/providers.md what it needs; the log "
        "says why none is fetched.",
    ),
    "provider_not_found": Code(
        "provider",
        "The provider has no such model, or nothing at that address.",
        "An endpoint mostly ends in /v1, and the model's name is the server's own: `torana models discover URL` tells "
        "both.",
    ),
    "provider_refused": Code(
        "provider", "The provider refused the request.", "Look for the request id in the gateway's log."
    ),
    "context_length_exceeded": Code(
        "client",
        "The prompt, or it and the answer that it asks for, is longer than the model's context window.",
        "Send less of the conversation, or choose a model that reads more: GET /openai/v1/models tells how much.",
    ),
    "provider_key_refused": Code(
        "provider",
        "The provider refused the gateway's own key.",
        "Replace the provider's key; of a model server that the request names, the one that came along.",
    ),
    "provider_limited": Code(
        "provider",
        "The provider limits the gateway's account.",
        "Wait as long as Retry-After says, or ask the provider for more.",
        is_retryable=True,
    ),
    "provider_spent": Code(
        "provider",
        "The gateway's account at the provider has no money or quota left.",
        "Add credit or raise the spend limit in the provider's own console.",
    ),
    "provider_overloaded": Code(
        "provider", "The provider is overloaded or broken.", "Try again shortly.", is_retryable=True
    ),
}


def may_be_retried(refusal: Refusal) -> bool:
    """Whether the same request may pass later: as the refusal itself says, else as its code does."""
    if refusal.is_retryable is not None:
        return refusal.is_retryable
    known = CODES.get(refusal.code)
    return known is not None and known.is_retryable


def refusal_text(refusal: Refusal) -> str:
    """`422 request_invalid: inputs.content: Field required`."""
    detail: Any = refusal.members.get("detail", str(refusal))
    if isinstance(detail, list):
        detail = "; ".join(
            f"{'.'.join(str(part) for part in row['loc'][1:]) or 'body'}: {row['msg']}" for row in detail
        )
    return f"{refusal.status} {refusal.code}: {detail}"
