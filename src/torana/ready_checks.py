"""What readiness says of keys, models, issuers and usage records."""

from torana.access.issuer_keys import IssuerState
from torana.access.keys import KeyRing
from torana.routing.models import Models
from torana.settings import Settings
from torana.usage.spool import Spool


def keys_check(settings: Settings, keys: KeyRing) -> tuple[bool, str]:
    auth = settings.auth
    if auth.bypass_external or auth.bypass_with_header or auth.bypass_jwt_signature:
        return True, "a bypass of authentication is on"
    return (True, "at least one key verifies") if keys.has_keys else (False, "no verification key yet")


def models_check(models: Models) -> tuple[bool, str]:
    names = {name: models.find_by_name(name).deployments[0].shown for name in models.catalogue.aliases}
    return True, ", ".join(f"{alias} = {name}" for alias, name in names.items())


def spool_note(spool: Spool, full_elsewhere: int) -> tuple[bool, str]:
    """
    full_elsewhere  how many other workers are not sure to find space for their records
    """
    if spool.is_full:
        return False, spool.why
    if full_elsewhere:
        return False, f"usage records find space here, but not in {full_elsewhere} other worker(s)"
    return True, "usage records find space"


def issuer_detail(state: IssuerState) -> str:
    skew = f", clock {round(state.skew_s):+d} s from ours" if state.skew_s is not None else ""
    return f"{state.detail}, {state.keys} key(s){skew}"
