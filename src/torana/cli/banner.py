"""What `torana serve` says on stderr: what was found, and three calls that work as they stand."""

from typing import TYPE_CHECKING

from torana import __version__
from torana.routing.models import Models
from torana.settings import Settings

if TYPE_CHECKING:
    from torana.app import Running

TOKEN = "$(.venv/bin/torana token)"  # noqa: S105 a command, not a secret


def write_banner(settings: Settings, running: "Running", store: str = "") -> str:
    """What a server that runs with these settings tells.

    store  how it stands with the counts that are shared; empty: there are none
    """
    models, keys = running.serving.models, running.parts.keys
    can_sign = keys.local.signing is not None
    serve = settings.serve
    scheme = "https" if serve.tls_enabled else "http"
    main = f"{scheme}://{_authority(serve.host, running.port)}"
    metrics = f"http://{_authority(serve.metrics_host or serve.host, running.metrics_port)}"
    host = "127.0.0.1" if serve.host in ("0.0.0.0", "::", "") else serve.host  # noqa: S104 shown, not bound
    base = f"{scheme}://{_authority(host, running.port)}"
    rows = [
        ("providers", _providers(settings, models)),
        (
            "models",
            ", ".join(
                f"{alias}: {models.find_by_name(alias).deployments[0].shown}" for alias in models.catalogue.aliases
            ),
        ),
        ("catalogue", _catalogue(settings, models)),
        ("access", _access(settings, can_sign=can_sign)),
        ("issuers", "; ".join(f"{state.issuer}: {state.detail}" for state in keys.states()) or "none"),
        *([("shared", store)] if store else ()),
        *([("usage", _unwritten(settings, running))] if running.parts.spool.is_full else ()),
        *([("docs", running.parts.search.check()[1])] if settings.search.index else ()),
        ("listening", f"{main}, metrics on {metrics}, {serve.workers} worker(s)"),
    ]
    lines = [f"torana {__version__} ({settings.environment})", *(f"  {name:<10} {text}" for name, text in rows), ""]
    if running.parts.spool.is_full and settings.usage.when_full == "refuse":
        lines.append("Try it: set AIGW_STATE_DIR (or AIGW_USAGE__SPOOL_DIR) to a folder that can be written.")
    elif can_sign:
        lines += ["Try it:", *(f"  {line}" for line in curl_lines(base, is_tls=serve.tls_enabled))]
    else:
        other = (
            "AIGW_STATE_DIR to another folder that can be written"
            if settings.is_development
            else "AIGW_ENVIRONMENT=development"
        )
        lines.append(f"Try it: set AIGW_SELF_SIGNED_JWT__SIGNING_KEY (torana keys new) or {other},")
        lines.append("        so that `torana token` can make a token that this gateway believes.")
    return "\n".join(lines) + "\n"


def curl_lines(base: str, *, is_tls: bool = False) -> list[str]:
    """Three calls: a completion, a prompt, a streamed chat step. They hold a command, never a token."""
    # The certificate names a host of the operator's, not the address shown here, or nobody has signed it.
    curl = "curl -k" if is_tls else "curl"
    headers = (
        f'-H "Authorization: Bearer {TOKEN}" -H "X-Gitlab-Authentication-Type: oidc" '
        '-H "X-Gitlab-Realm: self-managed" -H "X-Gitlab-Instance-Id: torana-dev" -H "Content-Type: application/json"'
    )
    completion = (
        '{"prompt_version":1,"current_file":{"file_name":"hello.py",'
        '"content_above_cursor":"def hello_world","content_below_cursor":""}}'
    )
    explain = '{"inputs":{"input":"explain this","selected_text":"print(sum(range(10)))","language_info":"Python"}}'
    chat = '{"messages":[{"role":"user","content":"What can you do?"}]}'
    return [
        f"{curl} -sS {base}/v2/code/completions {headers} -d '{completion}'",
        f"{curl} -sS {base}/v1/prompts/chat/explain_code {headers} -d '{explain}'",
        f"{curl} -sSN {base}/v2/chat/agent {headers} -d '{chat}'",
    ]


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _providers(settings: Settings, models: Models) -> str:
    if settings.providers.mock_responses:
        return "AIGW_MOCK_MODEL_RESPONSES is on: the built-in demo answers everything"
    found = []
    if models.is_configured("anthropic"):
        found.append("anthropic (key set)")
    if models.is_configured("openai"):
        where = f" at {settings.providers.openai_base_url}" if models.vendors.has_own_openai else ""
        found.append(f"openai ({'key set' if settings.providers.openai_api_key else 'no key needed'}{where})")
    others = (name for name in models.catalogue.providers if name not in ("anthropic", "openai", "demo"))
    found += [name + _said_of_models(models, name) for name in others if models.is_configured(name)]
    if settings.providers.custom_models:
        found.append("clients' own model servers" + _said_of_editors(models))
    if found:
        return ", ".join(found)
    names = "ANTHROPIC_API_KEY, OPENAI_API_KEY, GEMINI_API_KEY or OPENAI_BASE_URL"
    return f"none; the built-in demo answers (set {names} for real models)"


def _said_of_models(models: Models, provider: str) -> str:
    """Only deployments are called, and for most servers and vendors they are the operator's to name."""
    if any(provider == called for called, _ in models.catalogue.names_of_models()):
        return ""
    return " (no model of the catalogue is there: `torana models discover URL` prints records)"


def _said_of_editors(models: Models) -> str:
    """GitLab names its administrator's model; an editor that asks us directly names none, and would get the demo."""
    if models.find_by_name("completions_default").deployments[0].provider != "demo":
        return ""
    return (
        " (editors that connect directly are answered by the built-in demo: set OPENAI_BASE_URL to such a server, or "
        "choose indirect connections in GitLab)"
    )


def _catalogue(settings: Settings, models: Models) -> str:
    catalogue = models.catalogue
    overlays = settings.catalogue.overlays or "no overlays"
    sizes = (len(catalogue.prompts), len(catalogue.models), len(catalogue.unit_primitives))
    return "{} prompts, {} models, {} unit primitives; ".format(*sizes) + overlays


def _unwritten(settings: Settings, running: "Running") -> str:
    """Seldom a full disk at the start: in a container the home directory often cannot be written."""
    refuses = settings.usage.when_full == "refuse"
    then = "model calls are answered with 503" if refuses else "calls may go uncounted"
    return f"records cannot be written ({running.parts.spool.why}): {then}"


def _access(settings: Settings, *, can_sign: bool) -> str:
    auth = settings.auth
    if auth.bypass_external:
        return "BYPASSED: every request passes with all rights (AIGW_AUTH__BYPASS_EXTERNAL)"
    notes = ["tokens for " + auth.service_name]
    if not can_sign:
        notes.append("no signing key: user tokens cannot be minted")
    elif auth.signing_key:
        notes.append("signing key configured")
    else:
        notes.append(f"development signing key in {settings.state_path}")
    if auth.bypass_with_header:
        notes.append("Bypass-Auth: true passes")
    if auth.bypass_jwt_signature:
        notes.append("SIGNATURES ARE NOT CHECKED")
    return ", ".join(notes)
