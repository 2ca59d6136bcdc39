"""The gateway's own keys: one signs user tokens, one more is accepted; both are published.

In development a missing signing key is made once and kept in the state directory, so that
`torana token` and the server agree without any set-up. Never in another environment.
"""

import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from torana.access.jose import BadKey, Key, encode_number, rsa_key
from torana.auth_settings import AuthSettings
from torana.settings import Settings

logger = logging.getLogger("torana.access")

KEPT_KEY_FILE = "signing_key.pem"


@dataclass(frozen=True, slots=True)
class LocalKeys:
    """The two configured keys; either may be absent."""

    service_name: str
    signing: rsa.RSAPrivateKey | None = None
    validation: rsa.RSAPrivateKey | None = None
    kept_in: str = ""
    """The file of a signing key that a gateway in development made, where ours is no such environment."""

    @property
    def signing_kid(self) -> str:
        return f"{self.service_name}_signing_key"

    def caveat(self, kid: str) -> str:
        """What to know of the key of this name, before one takes it for a gateway's; mostly nothing."""
        is_kept = bool(self.kept_in) and kid == self.signing_kid
        return f"kept in {self.kept_in}: only a gateway in development believes it" if is_kept else ""

    def public(self) -> tuple[Key, ...]:
        """What tokens of our own verify under."""
        named = ((self.signing_kid, self.signing), (f"{self.service_name}_validation_key", self.validation))
        return tuple(Key(kid, "RSA", key.public_key(), "RS256") for kid, key in named if key is not None)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token over `claims`; raises LookupError without a signing key."""
        if self.signing is None:
            raise LookupError("no signing key")
        return jwt.encode(dict(claims), self.signing, algorithm="RS256", headers={"kid": self.signing_kid})

    def jwks(self) -> dict[str, Any]:
        """The document behind /.well-known/jwks.json: public halves only."""
        return {"keys": [_write_jwk(key) for key in self.public()]}

    def discovery(self, public_url: str) -> dict[str, Any] | None:
        """The discovery document; None where our absolute URL is not configured (never guessed from Host)."""
        if not public_url:
            return None
        return {
            "issuer": self.service_name,
            "jwks_uri": f"{public_url.rstrip('/')}/.well-known/jwks.json",
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def gateway_id(self) -> str:
        """The loop mark: the same on all replicas that share the signing key, random without one."""
        if self.signing is None:
            return secrets.token_hex(4)
        der = self.signing.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(der).hexdigest()[:8]


def load_local_keys(settings: Settings) -> LocalKeys:
    """The keys a server uses. A bad key is logged and left out; the service starts without it."""
    auth = settings.auth
    signing = _configured(auth.signing_key.reveal(), "AIGW_SELF_SIGNED_JWT__SIGNING_KEY")
    if not auth.signing_key and settings.is_development:
        signing = keep_signing_key(settings.state_path)
    validation = _configured(auth.validation_key.reveal(), "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY")
    return LocalKeys(auth.service_name, signing, validation)


def load_token_keys(settings: Settings) -> LocalKeys:
    """The keys `torana token` uses: the configured signing key, else the kept one, in any environment."""
    auth: AuthSettings = settings.auth
    signing = _configured(auth.signing_key.reveal(), "AIGW_SELF_SIGNED_JWT__SIGNING_KEY")
    kept_in = ""
    if not auth.signing_key:
        kept = settings.state_path / KEPT_KEY_FILE
        if kept.exists():
            signing = _read_kept(kept)
            kept_in = "" if settings.is_development else str(kept)
        elif settings.is_development:
            signing = keep_signing_key(settings.state_path)
    validation = _configured(auth.validation_key.reveal(), "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY")
    return LocalKeys(auth.service_name, signing, validation, kept_in)


def new_key_pem() -> bytes:
    """A fresh 2048-bit RSA key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_private_key(pem: str) -> rsa.RSAPrivateKey:
    """An RSA key from PEM text, in which `\\n` may stand for line ends; raises BadKey.

    It is tried instead of proven: whether its primes are prime takes the library 35 ms a key, at every start.
    """
    try:
        data = pem.replace("\\n", "\n").encode("utf-8")
        key = serialization.load_pem_private_key(data, password=None, unsafe_skip_rsa_key_validation=True)
    except Exception as error:
        raise BadKey("is no readable PEM private key") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BadKey("is no RSA key")
    numbers = key.public_key().public_numbers()
    rsa_key(numbers.n, numbers.e)
    _try(key)
    return key


def _try(key: rsa.RSAPrivateKey) -> None:
    """Raises BadKey where nobody could verify what the key signs."""
    how, what = padding.PKCS1v15(), hashes.SHA256()
    try:
        key.public_key().verify(key.sign(b"", how, what), b"", how, what)
    except (ValueError, InvalidSignature) as error:
        raise BadKey("is no RSA key whose halves belong together") from error


def keep_signing_key(state_dir: Path) -> rsa.RSAPrivateKey | None:
    """The kept development key, made if there is none; None where the directory is not writable.

    Several workers may start at once: each writes a file of its own and links it into place, which
    only one can do; all then read what stands there.
    """
    kept = state_dir / KEPT_KEY_FILE
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not kept.exists():
            _place_new_key(kept)
    except OSError as error:
        logger.error("no development signing key: the state directory is not writable", extra={"reason": str(error)})
        return None
    return _read_kept(kept)


def _place_new_key(kept: Path) -> None:
    draft = kept.with_name(f".{kept.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(new_key_pem())
            file.flush()
            os.fsync(file.fileno())  # else a machine that stops now keeps its name alone
        with contextlib.suppress(FileExistsError):  # another worker was first, and its key is as good
            os.link(draft, kept)
    finally:
        draft.unlink()


def _read_kept(path: Path) -> rsa.RSAPrivateKey | None:
    try:
        return read_private_key(path.read_text(encoding="utf-8"))
    except PermissionError:  # nothing is wrong with it: it is the server's, and whoever looks is another user
        logger.error(f"the kept development signing key {path} is not this user's to read: be the one who serves")
        return None
    except (OSError, ValueError, BadKey) as error:
        logger.error(
            f"the kept development signing key is unusable: remove {path}, and the next start makes another",
            extra={"reason": str(error)},
        )
        return None


def _configured(pem: str, name: str) -> rsa.RSAPrivateKey | None:
    if not pem:
        return None
    try:
        return read_private_key(pem)
    except BadKey as error:
        logger.error(f"{name} {error}; it is left out", extra={"setting": name})
        return None


def _write_jwk(key: Key) -> dict[str, str]:
    if not isinstance(key.public, rsa.RSAPublicKey):
        raise TypeError("local keys are RSA keys")
    numbers = key.public.public_numbers()
    return {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": key.kid,
        "n": encode_number(numbers.n),
        "e": encode_number(numbers.e),
    }
