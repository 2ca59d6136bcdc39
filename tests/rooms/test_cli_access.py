"""`torana token`, `access`, `keys`, `jws` and `error`: interface 2."""

import asyncio
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.access import GITLAB_KEY, LOCAL_KEY, SERVICE, STRANGE_KEY, claims, jwk, sign, sign_raw
from tests.support.issuer import FakeIssuer
from tests.support.keys import pem, rsa_key

from torana.catalog.load import load_catalogue
from torana.cli import main
from torana.refusals import CODES

NOBODY = "http://127.0.0.1:9"


class Terminal:
    """Runs commands in an empty directory, with this environment and no other settings."""

    def __init__(self, folder: Path) -> None:
        self.env: dict[str, str | None] = {
            "AIGW_STATE_DIR": str(folder / "state"),
            "AIGW_GITLAB_URL": NOBODY,
            "AIGW_CUSTOMER_PORTAL_URL": NOBODY,
            "AIGW_ENVIRONMENT": None,
            "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": pem(rsa_key(LOCAL_KEY)).replace("\n", "\\n"),
        }

    def run(self, *args: str, typed: str | None = None, **env: str | None) -> Result:
        return CliRunner().invoke(main, args, input=typed, env=self.env | env)


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.chdir(tmp_path)  # a `.env` of the checkout must not be read
    return Terminal(tmp_path)


def read(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(
        token.strip(), rsa_key(LOCAL_KEY).public_key(), algorithms=["RS256"], audience=[SERVICE, "other"]
    )
    return found


def test_what_a_command_is_told_commands_no_terminal_on_either_stream(terminal: Terminal) -> None:
    title = "\x1b]0;mine\x07"

    refused, checked = terminal.run("usage", "report", "--rollup", title), terminal.run("check", "--catalog", title)

    assert r"\u001b]0;mine\u0007" in refused.stderr
    assert r"\u001b]0;mine\u0007" in checked.stdout


# torana token


@pytest.mark.parametrize("args", [("token",), ("token", "new")])
def test_token_prints_an_instance_token_with_every_right(terminal: Terminal, args: tuple[str, ...]) -> None:
    result = terminal.run(*args)

    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    found = read(result.stdout)
    assert (found["iss"], found["sub"], found["aud"]) == ("torana-dev", "torana-dev", SERVICE)
    assert (found["gitlab_realm"], found["gitlab_instance_id"]) == ("self-managed", "torana-dev")
    assert set(found["scopes"]) == set(load_catalogue().unit_primitives)
    assert 3590 < found["exp"] - time.time() <= 3600


def test_every_part_of_a_token_can_be_chosen(terminal: Terminal) -> None:
    result = terminal.run(
        "token", "--unit-primitive", "a", "--unit-primitive", "b", "--realm", "saas", "--instance-id", "i",
        "--user-id", "u", "--issuer", "https://own.example", "--audience", "other", "--lifetime", "2m",
    )  # fmt: skip

    found = read(result.stdout)
    assert (found["scopes"], found["gitlab_realm"], found["gitlab_instance_id"]) == (["a", "b"], "saas", "i")
    assert (found["iss"], found["aud"], found["sub"]) == ("https://own.example", "other", "i")
    assert found["exp"] - found["iat"] == 120


def test_a_right_that_the_catalogue_does_not_know_is_noted_and_in_the_token_all_the_same(terminal: Terminal) -> None:
    names = ("complete_cod", "code_suggestions", "duo_chat")

    result = terminal.run("token", *(arg for name in names for arg in ("--unit-primitive", name)))

    assert result.exit_code == 0
    assert read(result.stdout)["scopes"] == list(names)
    assert result.stderr == (
        "note: the catalogue has no unit primitive 'complete_cod', did you mean `complete_code`?\n"
    )


def test_with_the_service_name_as_issuer_it_is_a_user_token(terminal: Terminal) -> None:
    assert read(terminal.run("token", "--issuer", SERVICE).stdout)["sub"] == "torana-dev-user"


def test_headers_are_the_lines_that_go_with_the_token(terminal: Terminal) -> None:
    lines = terminal.run("token", "--headers", "--realm", "saas").stdout.splitlines()

    assert lines[0].startswith("Authorization: Bearer ey")
    assert lines[1:] == [
        "X-Gitlab-Authentication-Type: oidc",
        "X-Gitlab-Realm: saas",
        "X-Gitlab-Instance-Id: torana-dev",
        "X-Gitlab-Global-User-Id: torana-dev-user",
    ]


def test_the_same_comes_as_json(terminal: Terminal) -> None:
    found = json.loads(terminal.run("token", "new", "--json").stdout)

    assert found["headers"]["Authorization"] == f"Bearer {found['token']}"
    assert found["expires_at"] == read(found["token"])["exp"]


@pytest.mark.parametrize("text", ["x", "1w", "", "1h30", "٣"])
def test_a_lifetime_that_is_none_is_wrong_usage(terminal: Terminal, text: str) -> None:
    assert terminal.run("token", "--lifetime", text).exit_code == 2


def test_without_a_key_the_remedy_is_told(terminal: Terminal) -> None:
    result = terminal.run("token", AIGW_SELF_SIGNED_JWT__SIGNING_KEY=None)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "AIGW_SELF_SIGNED_JWT__SIGNING_KEY" in result.stderr


def test_a_kept_development_key_that_is_damaged_is_named_and_what_helps(
    terminal: Terminal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = {"AIGW_SELF_SIGNED_JWT__SIGNING_KEY": None, "AIGW_ENVIRONMENT": "development"}
    file = tmp_path / "state" / "signing_key.pem"
    file.parent.mkdir()
    file.touch()  # as a machine leaves it that stops between its name and its content

    refused = terminal.run("token", **bare)
    file.unlink()
    made = terminal.run("token", **bare)

    assert (refused.exit_code, refused.stdout, made.exit_code) == (1, "", 0)
    assert f"remove {file}, and the next start makes another" in caplog.text


def test_a_kept_development_key_of_another_user_is_not_to_be_removed(
    terminal: Terminal, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = os.geteuid()
    monkeypatch.chdir("/")
    with TemporaryDirectory() as folder:
        bare = {"AIGW_SELF_SIGNED_JWT__SIGNING_KEY": None, "AIGW_STATE_DIR": folder}
        file = Path(folder, "signing_key.pem")
        file.touch(0)
        Path(folder).chmod(0o755)
        try:
            os.seteuid(me or 65534)  # what root is not let do, nobody is
            refused = terminal.run("token", **bare)
        finally:
            os.seteuid(me)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"{file} is not this user's to read: be the one who serves" in caplog.text


def test_the_kept_development_key_serves_in_any_environment(terminal: Terminal) -> None:
    bare = {"AIGW_SELF_SIGNED_JWT__SIGNING_KEY": None}
    made = terminal.run("token", AIGW_ENVIRONMENT="development", **bare)
    later = terminal.run("token", **bare)

    assert (made.exit_code, later.exit_code) == (0, 0)
    assert terminal.run("token", "inspect", later.stdout.strip(), "--offline", **bare).exit_code == 0


def test_a_key_that_only_a_gateway_in_development_believes_is_told_as_one(terminal: Terminal) -> None:
    bare = {"AIGW_SELF_SIGNED_JWT__SIGNING_KEY": None}
    development = {**bare, "AIGW_ENVIRONMENT": "development"}
    token = terminal.run("token", **development).stdout.strip()
    said = "signing_key.pem: only a gateway in development believes it"

    for env, is_told in ((bare, True), (development, False), ({}, False)):
        inspected = terminal.run("token", "inspect", token, "--offline", **env).stdout
        listed = terminal.run("keys", "list", "--offline", **env).stdout

        assert (said in inspected, said in listed) == (is_told, is_told)


def test_a_bad_setting_ends_the_command_with_2(terminal: Terminal) -> None:
    result = terminal.run("token", AIGW_AUTH__LEEWAY_S="soon")

    assert result.exit_code == 2
    assert result.stderr.startswith("AIGW_AUTH__LEEWAY_S: ")


# torana token inspect, access check, keys list


def inspected(terminal: Terminal, token: str, **env: str) -> tuple[int, dict[str, str]]:
    result = terminal.run("token", "inspect", "-", "--offline", "--json", typed=token, **env)
    found = json.loads(result.stdout)
    assert found["accepted"] == (result.exit_code == 0)
    return result.exit_code, {row["check"]: row["code"] for row in found["checks"] if row["code"]}


def test_inspect_accepts_what_the_gateway_accepts(terminal: Terminal) -> None:
    token = terminal.run("token").stdout

    assert inspected(terminal, token) == (0, {})
    assert inspected(terminal, f"Bearer {token}") == (0, {})


def test_inspect_names_everything_that_is_wrong_at_once(terminal: Terminal) -> None:
    token = sign(claims(0, aud="x", nbf=int(time.time()) + 999, exp=int(time.time()) + 9999), STRANGE_KEY)
    found = terminal.run("token", "inspect", token, "--offline", AIGW_AUTH__ISSUERS="https://only.example")

    assert found.exit_code == 1
    for code in ("token_audience", "token_not_yet_valid", "token_issuer", "token_signature"):
        assert code in found.stdout


def test_inspect_says_what_the_deny_list_and_the_algorithm_would_do(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "deny.yml").write_text("- {name: lost, instance: torana-dev}\n")
    ours = terminal.run("token").stdout.strip()
    made_up = sign_raw('{"alg":"HS256"}', json.dumps(claims(0, exp=int(time.time()) + 999)))

    assert inspected(terminal, ours, AIGW_CATALOG=str(tmp_path)) == (1, {"deny list": "token_revoked"})
    assert inspected(terminal, made_up) == (1, {"key": "token_algorithm"})


@pytest.mark.parametrize(
    ("token", "wrong"),
    [
        ("garbage", {"form": "token_malformed"}),
        ("", {"form": "token_malformed"}),
        ("x" * 9000, {"form": "token_too_large"}),
        (sign_raw('{"alg":"RS256","jku":"x"}', "{}"), {"form": "token_header_refused"}),
        (sign_raw('{"alg":"RS256"}', '{"aud":"gitlab-ai-gateway"}'), {"form": "token_malformed"}),
    ],
)
def test_inspect_explains_what_it_cannot_read(terminal: Terminal, token: str, wrong: dict[str, str]) -> None:
    assert inspected(terminal, token) == (1, wrong)


async def test_inspect_asks_the_issuer_for_its_keys(issuer: FakeIssuer, terminal: Terminal) -> None:
    terminal.env |= {"AIGW_GITLAB_URL": issuer.url, "AIGW_CUSTOMER_PORTAL_URL": issuer.url}
    token = issuer.token(unit_primitives=["duo_chat"])

    result = await asyncio.to_thread(terminal.run, "token", "inspect", token)
    listed = await asyncio.to_thread(terminal.run, "keys", "list", "--json")
    checked = await asyncio.to_thread(terminal.run, "access", "check", "--token", token, "--unit-primitive", "duo_chat")

    assert (result.exit_code, checked.exit_code) == (0, 0)
    found = json.loads(listed.stdout)
    assert [row["issuer"] for row in found["keys"]][:1] == [SERVICE]
    assert [(row["ok"], row["age_s"] >= 0) for row in found["issuers"]] == [(True, True)]


def test_an_issuer_that_does_not_answer_is_named(terminal: Terminal) -> None:
    token = sign(claims(time.time(), iss=NOBODY))

    result = terminal.run("token", "inspect", token)
    listed = terminal.run("keys", "list")

    assert result.exit_code == 1
    assert f"({NOBODY}: " in result.stdout
    assert listed.exit_code == 0
    assert f"FAILED  {NOBODY}: " in listed.stdout


@pytest.mark.parametrize(
    ("issuer", "wanted", "extra", "code"),
    [
        ("torana-dev", "duo_chat", (), None),
        ("torana-dev", "complete_code", (), "unit_primitive_missing"),
        (SERVICE, "duo_chat", (), None),
        (SERVICE, "duo_chat", ("--instance-only",), "user_token_not_accepted"),
    ],
)
def test_access_check_gives_the_decision_and_the_remedy(
    terminal: Terminal, issuer: str, wanted: str, extra: tuple[str, ...], code: str | None
) -> None:
    token = terminal.run("token", "--unit-primitive", "duo_chat", "--issuer", issuer).stdout.strip()
    args = ("access", "check", "--token", token, "--unit-primitive", wanted, "--offline", *extra)

    result, told = terminal.run(*args, "--json"), terminal.run(*args)

    found = json.loads(result.stdout)
    assert found["allowed"] == (code is None)
    assert found.get("code") == code
    assert result.exit_code == told.exit_code == (0 if code is None else 1)
    assert code is None or CODES[code].remedy in told.stdout


def test_access_check_refuses_a_bad_token(terminal: Terminal) -> None:
    result = terminal.run("access", "check", "--token", "-", "--unit-primitive", "x", "--offline", "--json", typed="no")

    assert (result.exit_code, json.loads(result.stdout)["code"]) == (1, "token_malformed")


def test_keys_new_prints_a_key_that_works(terminal: Terminal) -> None:
    made = terminal.run("keys", "new")

    token = terminal.run("token", AIGW_SELF_SIGNED_JWT__SIGNING_KEY=made.stdout).stdout.strip()

    assert token
    assert json.loads(terminal.run("keys", "new", "--json").stdout)["pem"].startswith("-----BEGIN PRIVATE KEY-----\n")


# torana jws verify


def verify(terminal: Terminal, token: str | bytes, jwks: Any, *args: str) -> tuple[int, Any]:
    Path("token").write_bytes(token if isinstance(token, bytes) else token.encode())
    Path("jwks").write_text(jwks if isinstance(jwks, str) else json.dumps(jwks))
    result = terminal.run("jws", "verify", "--token", "token", "--jwks", "jwks", *args)
    return result.exit_code, json.loads(result.stdout) if result.exit_code < 2 else None


GOOD = sign({"no": "claims are looked at"}, kid="unknown")
KEYS = {"keys": [{"kty": "oct", "k": "c2VjcmV0"}, jwk(STRANGE_KEY), jwk(GITLAB_KEY)]}
UNSIGNED = jwt.encode({}, None, algorithm="none")
CURVE_KEY = ec.derive_private_key(12345, ec.SECP256R1())
CURVE_TOKEN = jwt.encode({}, CURVE_KEY, algorithm="ES256")
CURVE_JWK = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(CURVE_KEY.public_key())) | {"key_ops": ["verify"]}


@pytest.mark.parametrize(
    ("token", "jwks", "args", "reason"),
    [
        (GOOD, KEYS, (), "ok"),
        (GOOD + "\n", KEYS, (), "ok"),
        (GOOD, jwk(GITLAB_KEY), (), "ok"),
        (GOOD, {"keys": []}, (), "token_signature"),
        (GOOD, jwk(STRANGE_KEY), (), "token_signature"),
        (GOOD, jwk(GITLAB_KEY, use="enc"), (), "token_signature"),
        (GOOD, KEYS, ("--alg", "RS512"), "token_algorithm"),
        (GOOD, KEYS, ("--max-bytes", str(len(GOOD))), "ok"),
        (GOOD, KEYS, ("--max-bytes", str(len(GOOD) - 1)), "token_too_large"),
        (GOOD[:-6], KEYS, (), "token_signature"),
        (GOOD + " ", KEYS, (), "token_malformed"),
        ("", KEYS, (), "token_malformed"),
        (b"\xff\xfe", KEYS, (), "token_malformed"),
        (sign_raw('{"alg":"RS256","crit":["b64"],"b64":false}', "x"), KEYS, (), "token_header_refused"),
        (sign_raw('{"alg":"RS256"}', b"\xff any bytes"), KEYS, (), "ok"),
        (CURVE_TOKEN, CURVE_JWK, (), "token_algorithm"),
        (UNSIGNED, KEYS, ("--alg", "none"), "token_algorithm"),
        (GOOD, KEYS, ("--alg", "unheard-of"), "token_algorithm"),
        (CURVE_TOKEN, CURVE_JWK, ("--alg", "RS256", "--alg", "ES256"), "ok"),
    ],
)
def test_jws_verify_looks_at_signature_and_header_only(
    terminal: Terminal, token: str | bytes, jwks: Any, args: tuple[str, ...], reason: str
) -> None:
    expected = {"valid": reason == "ok", "reason": reason}

    assert verify(terminal, token, jwks, *args) == (0 if reason == "ok" else 1, expected)


def test_jws_verify_prints_one_compact_line_and_reads_standard_input(terminal: Terminal) -> None:
    Path("jwks").write_text(json.dumps(KEYS))

    result = terminal.run("jws", "verify", "--token", "-", "--jwks", "jwks", typed=GOOD + "\n")

    assert result.stdout == '{"valid":true,"reason":"ok"}\n'


@pytest.mark.parametrize("jwks", ["", "{", "[]", "7", '{"keys":{}}'])
def test_a_key_set_that_is_none_is_wrong_usage(terminal: Terminal, jwks: str) -> None:
    assert verify(terminal, GOOD, jwks) == (2, None)


@pytest.mark.parametrize("args", [("--token", "nowhere"), ("--jwks", "nowhere"), ("--max-bytes", "0")])
def test_wrong_usage_of_jws_verify_ends_with_2(terminal: Terminal, args: tuple[str, ...]) -> None:
    assert verify(terminal, GOOD, KEYS, *args) == (2, None)


# torana error


def test_error_lists_every_code(terminal: Terminal) -> None:
    lines = terminal.run("error").stdout.splitlines()

    assert [line.split()[0] for line in lines] == list(CODES)
    assert [row["code"] for row in json.loads(terminal.run("error", "--json").stdout)] == list(CODES)


@pytest.mark.parametrize("code", CODES)
def test_error_prints_the_page_of_each_code(terminal: Terminal, code: str) -> None:
    told, found = terminal.run("error", code), json.loads(terminal.run("error", code, "--json").stdout)

    assert told.exit_code == 0
    assert CODES[code].remedy in told.stdout
    assert found == {
        "code": code,
        "layer": CODES[code].layer,
        "meaning": CODES[code].meaning,
        "remedy": CODES[code].remedy,
        "retryable": CODES[code].is_retryable,
    }


def test_an_unknown_code_is_wrong_usage_and_the_nearest_is_named(terminal: Terminal) -> None:
    for typed, told in (
        ("token_expire", "token_expired"),
        ("TOKEN_EXPIRED", "token_expired"),
        ("403", "`torana error` lists them"),
    ):
        result = terminal.run("error", typed)

        assert (result.exit_code, told in result.stderr) == (2, True)
