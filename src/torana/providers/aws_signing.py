"""Requests signed as AWS wants it, with the keys of the environment or with what AWS's own library finds.

The library is an extra and imported on first use, in a thread: botocore.
Source: AWS General Reference, "Signature Version 4".
"""

import math
from typing import Any

from torana.clock import Clock
from torana.errors import NoCredentials
from torana.settings import ProviderSettings

LASTS_S = 600.0
"""The library renews credentials ten minutes ahead of their end, and asks nobody before."""

NO_LIBRARY = "AWS credentials need the library botocore: run `make extras`, or set AWS_BEARER_TOKEN_BEDROCK"
NO_KEYS = (
    "no AWS credentials: set AWS_BEARER_TOKEN_BEDROCK, AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, or whatever else"
    " AWS's own libraries look for, such as a role or AWS_PROFILE"
)


class Signer:
    """Signs with one set of keys, in about a tenth of a millisecond and the time that the body's digest takes."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys

    def sign(self, url: str, body: bytes, content_type: str, region: str) -> dict[str, str]:
        """The headers that a POST needs beside Content-Type."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest("POST", url, data=body, headers={"Content-Type": content_type})
        SigV4Auth(self.keys, "bedrock", region).add_auth(request)
        return {name: value for name, value in request.headers.items() if name != "Content-Type"}


def fetch_signer(settings: ProviderSettings, clock: Clock) -> tuple[Signer, float]:
    """A signer, and until when it can be used; raises NoCredentials.

    Blocks: for the import the first time, and for as long as the library asks others for credentials.
    """
    try:
        import botocore.auth
        import botocore.credentials
        import botocore.exceptions
        import botocore.session
    except ImportError:
        raise NoCredentials(NO_LIBRARY) from None
    credentials = botocore.credentials
    if settings.aws_access_key_id and settings.aws_secret_access_key:
        token = settings.aws_session_token.reveal() or None
        keys = credentials.Credentials(settings.aws_access_key_id, settings.aws_secret_access_key.reveal(), token)
        return Signer(keys), math.inf
    try:
        found = botocore.session.get_session().get_credentials()
        if found is None:
            raise NoCredentials(NO_KEYS)
        ends_at = clock.now() + LASTS_S if isinstance(found, credentials.RefreshableCredentials) else math.inf
        return Signer(found.get_frozen_credentials()), ends_at
    except (botocore.exceptions.BotoCoreError, OSError) as error:
        # The kind says what is wrong; the text may name files and accounts.
        raise NoCredentials(f"AWS credentials cannot be fetched: {type(error).__name__}") from error
