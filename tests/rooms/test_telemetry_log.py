"""Logs: one JSON object a line, correlated, masked, and never in a request's way (LC10)."""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.disks import fill, small_file_system

from torana.environment import load_settings
from torana.settings import LogSettings, Secret
from torana.telemetry.log import AccessLine, Log, LogSink, _pair_value, install, request_id
from torana.telemetry.redaction import MASK, Redactor, secrets_of

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def line(**more: Any) -> AccessLine:
    told: dict[str, Any] = {"url": "http://gateway/v1/x", "path": "/v1/x", "status_code": 200, "method": "POST"} | more
    return AccessLine(timestamp=NOON, correlation_id="r-1", **told)


Start = Callable[..., Log]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: (tmp_path / "out").read_text().splitlines()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(level=…)`: a log to the file `out`; `close()` it, then read `written()`."""
    with contextlib.ExitStack() as stack:

        def start(secrets: tuple[str, ...] = (), **settings: Any) -> Log:
            fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            stack.callback(os.close, fd)
            root, ours = logging.getLogger(), logging.getLogger("torana")
            stack.callback(root.setLevel, root.level)
            stack.callback(ours.setLevel, ours.level)
            log = install(LogSettings(**settings), LogSink(fd), secrets)
            stack.callback(log.close)
            return log

        yield start


Written = Callable[[], list[str]]


def test_a_log_line_is_one_json_object_with_the_members_of_the_contract(start: Start, written: Written) -> None:
    log = start()
    token = request_id.set("r-7")

    logging.getLogger("torana.routing").warning("deployment %s rests\nfor a while", "a", extra={"failures": 3})

    request_id.reset(token)
    log.close()
    (text,) = written()
    found = json.loads(text)
    assert datetime.fromisoformat(found.pop("timestamp")).tzinfo is not None
    assert found == {
        "message": "deployment a rests\nfor a while",
        "level": "warning",
        "logger": "torana.routing",
        "type": "mlops",
        "stage": "main",
        "correlation_id": "r-7",
        "failures": 3,
    }


def test_an_exception_is_told_by_class_message_and_backtrace(start: Start, written: Written) -> None:
    log = start()

    try:
        raise ValueError("no such thing")
    except ValueError:
        logging.getLogger("torana.api").exception("failed")

    log.close()
    found = json.loads(written()[0])
    assert (found["exception_class"], found["exception_message"]) == ("ValueError", "no such thing")
    assert "Traceback" in found["exception_backtrace"]
    assert "correlation_id" not in found


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("DEBUG", ["ours debug", "ours info", "library warning"]),
        ("INFO", ["ours info", "library warning"]),
        ("ERROR", []),
    ],
)
def test_ours_speak_from_the_set_level_on_and_libraries_from_warnings_on(
    start: Start, written: Written, level: str, expected: list[str]
) -> None:
    log = start(level=level)

    logging.getLogger("torana.x").debug("ours debug")
    logging.getLogger("torana.x").info("ours info")
    logging.getLogger("somelibrary").info("library info")
    logging.getLogger("somelibrary").warning("library warning")

    log.close()
    assert [json.loads(text)["message"] for text in written()] == expected


def test_a_member_that_cannot_be_told_costs_its_line_and_nothing_else(start: Start, written: Written) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError

    log = start()

    logging.getLogger("torana.x").info("hm", extra={"thing": Unspeakable()})

    log.close()
    assert [json.loads(text)["message"] for text in written()] == ["a log line was lost"]


def test_the_access_line_has_its_members_and_the_calls_facts(start: Start, written: Written) -> None:
    log = start()

    log.write_access(
        line(request_arrived_at=NOON),
        {"meta.unit_primitive": "explain_code", "provider": "anthropic", "input_tokens": 3},
    )

    log.close()
    found = json.loads(written()[0])
    assert (found["logger"], found["level"], found["type"], found["stage"]) == ("api.access", "info", "mlops", "main")
    assert found["timestamp"] == found["request_arrived_at"] == "2026-11-22T12:00:00Z"
    assert (found["meta.unit_primitive"], found["provider"], found["input_tokens"]) == ("explain_code", "anthropic", 3)
    assert (found["duration_request"], found["gitlab_realm"]) == (-1, None)


def test_every_member_that_the_contract_names_is_there(start: Start, written: Written) -> None:
    log = start()
    log.write_access(line())
    log.close()

    always = (
        "message level logger timestamp type stage correlation_id url path status_code method http_version client_ip "
        "client_port duration_s duration_request request_arrived_at response_start_duration_s first_chunk_duration_s "
        "cpu_s content_type user_agent gitlab_language_server_version gitlab_instance_id gitlab_global_user_id "
        "gitlab_host_name gitlab_version gitlab_saas_duo_pro_namespace_ids gitlab_feature_enabled_by_namespace_ids "
        "gitlab_feature_enablement_type gitlab_realm gitlab_root_namespace_id gitlab_organization_id "
        "is_gitlab_team_member gitlab_duo_seat_count"
    )
    assert set(json.loads(written()[0])) == set(always.split())


@pytest.mark.parametrize(
    ("log_level", "line_level", "lines"),
    [("INFO", "debug", 0), ("DEBUG", "debug", 1), ("INFO", "info", 1), ("WARNING", "info", 0), ("WARNING", "error", 1)],
)
def test_probes_are_written_at_debug_level_only(
    start: Start, written: Written, log_level: str, line_level: str, lines: int
) -> None:
    log = start(level=log_level)

    log.write_access(line(level=line_level))

    log.close()
    assert len(written()) == lines


def test_pairs_are_written_where_json_is_not_wanted(start: Start, written: Written) -> None:
    log = start(as_json=False)

    logging.getLogger("torana.x").info('says "no"\nthen leaves', extra={"count": 2, "empty": ""})
    log.write_access(line(user_agent="a b"), {"flags": ["x", "y"]})

    log.close()
    rare, access = written()
    assert r'message="says \"no\"\nthen leaves"' in rare
    assert ' count=2 empty=""' in rare
    assert "path=/v1/x status_code=200 method=POST" in access
    assert 'user_agent="a b"' in access
    assert r'flags="[\"x\", \"y\"]"' in access


@given(st.text(), st.text())
def test_pairs_are_always_one_line(name: str, value: str) -> None:
    written = _pair_value(name + value)

    assert len(written.splitlines()) == 1
    assert not written.startswith('"') or json.loads(written) == name + value


@pytest.mark.parametrize(
    "secret",
    [
        f"Authorization: Bearer {JWT}",
        JWT,
        "sk-ant-api03-abcdef1234567890",
        "sk-proj_abcdefghijklmnop",
        "x-api-key: abcdef",
        '{"model_api_key": "hunter2"}',
        "https://h/x?api_key=hunter2&token=abc",
        "ANTHROPIC_API_KEY=hunter2",
        "password='hunter2'",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "the configured one is s3cret-value-of-ours.",
    ],
)
def test_a_credential_never_reaches_a_log(start: Start, written: Written, secret: str) -> None:
    log = start(secrets=("s3cret-value-of-ours",))

    logging.getLogger("torana.x").error("failed with %s", secret, extra={"detail": {"inner": [secret]}})
    try:
        raise ValueError(secret)
    except ValueError:
        logging.getLogger("torana.x").exception("failed")
    log.write_access(line(url=f"http://h/x?{secret}"), {"exception_class": "E", "exception_message": secret})
    log.write_access(line(), {"http_exception_details": secret})

    log.close()
    text = "\n".join(written())
    for canary in (JWT, "abcdef", "hunter2", "s3cret", "MIIEow", "token=abc"):
        assert canary not in text
    assert MASK in text


def test_a_token_in_any_text_a_client_sends_is_masked_in_the_access_line(start: Start, written: Written) -> None:
    log = start()

    log.write_access(line(user_agent=f"agent {JWT}", url=f"http://h/{JWT}"), {"auth_error_details": "expired"})

    log.close()
    assert JWT not in written()[0]


@pytest.mark.parametrize("begun", ["-eyJ", "-eyJaaaa", "eyJ", "eyJaaaa.", "sk-", "token ", "bearer ", "-----BEGIN "])
def test_what_only_begins_like_credentials_holds_nobody_up(begun: str) -> None:
    redactor = Redactor()
    before = time.thread_time()

    redactor.text(begun * (30_000 // len(begun)))

    assert time.thread_time() - before < 0.2


@pytest.mark.parametrize("text", ["{}", "a-{}", "eyJ-{}", "-eyJ.{}", "x.{}", '"{}"', "/{}/a", "--{}--.x"])
def test_a_token_is_found_wherever_it_begins(text: str) -> None:
    assert "ImF1dGgi" not in Redactor().text(text.format("eyJhbGciOiJSUzI1NiJ9.ImF1dGgi"))


def test_half_a_letter_in_a_path_costs_no_line(start: Start, written: Written) -> None:
    log = start()

    log.write_access(line(path="/v1/\udcc3"), {"model": "\ud83d"})
    # Handed over directly: the test runner's own log handler could not report such a text.
    log.write_record(logging.makeLogRecord({"name": "torana.x", "levelname": "WARNING", "msg": "\udcc3"}))

    log.close()
    access, rare = written()
    assert json.loads(access)["path"] == "/v1/\udcc3"
    assert json.loads(rare)["message"] == "\udcc3"


@pytest.mark.parametrize(
    "text",
    [
        "input_tokens: 5",
        "token_issuer=torana-dev",
        "a task-runner-for-all",
        "desk-top",
        "AIGW_SINK__BILLING_TOKEN: is not set",
    ],
)
def test_ordinary_words_are_left_alone(text: str) -> None:
    assert Redactor().text(text) == text


def test_a_member_with_a_secrets_name_is_masked_whatever_it_holds() -> None:
    assert Redactor().value({"X-Api-Key": "plain", "token": ["a"], "tokens": 5}) == {
        "X-Api-Key": MASK,
        "token": [MASK],
        "tokens": 5,
    }


def with_secrets(settings: Any, told: set[str]) -> Any:
    """The same settings with every secret set; what they are set to is added to `told`."""
    members: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Secret):
            members[field.name] = Secret(f"the {field.name} itself")
            told.add(members[field.name].reveal())
        elif dataclasses.is_dataclass(value):
            members[field.name] = with_secrets(value, told)
    return dataclasses.replace(settings, **members)


def test_every_secret_of_the_settings_is_masked() -> None:
    told: set[str] = set()
    masked = secrets_of(with_secrets(load_settings({}), told))

    # Of an address its password is masked; keys in PEM are known by their form.
    apart = {f"the {name} itself" for name in ("redis_url", "signing_key", "validation_key")}
    assert told - set(masked) == apart


@pytest.mark.parametrize("name", ["AIGW_REDIS_URL", "AIGW_SINK__BILLING"])
def test_the_password_in_an_address_is_masked_by_itself(name: str) -> None:
    settings = load_settings({name: "redis://user:only%2Fours-1@store:6379/0"})

    assert "only/ours-1" in secrets_of(settings)


def test_a_token_that_is_no_address_is_masked() -> None:
    assert "http://[no" in secrets_of(load_settings({"AIGW_SINK__TOKEN": "http://[no"}))


@given(st.text(max_size=200))
def test_masking_twice_is_masking_once(text: str) -> None:
    once = Redactor().text(text)

    assert Redactor().text(once) == once


def test_a_file_gets_the_lines_as_well(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    sink = LogSink(writer, str(tmp_path / "also"))

    for number in range(100):
        sink.write(b"%d" % number)
    sink.close()
    os.close(writer)

    with open(reader, "rb") as pipe:
        told = pipe.read()
    assert told == (tmp_path / "also").read_bytes() == b"".join(b"%d\n" % number for number in range(100))
    assert sink.dropped_lines == 0


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    path = tmp_path / "also"
    sink = LogSink(writer, str(path))

    for number, moved_to in enumerate(("first", "folder/second", "")):
        sink.write(b"%d" % number)
        assert os.read(reader, 100) == b"%d\n" % number  # the file has it before
        if moved_to.startswith("folder"):
            (tmp_path / "folder").mkdir()
        if moved_to:
            path.rename(tmp_path / moved_to)
    sink.close()
    os.close(writer)
    os.close(reader)

    told = [(tmp_path / name).read_text() for name in ("first", "folder/second", "also")]
    assert told == ["0\n", "1\n", "2\n"]


def test_a_file_whose_folder_is_gone_is_written_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = LogSink(writer, str(folder / "also"))

    folder.rename(tmp_path / "elsewhere")
    sink.write(b"0")
    assert os.read(reader, 100) == b"0\n"
    sink.close()
    os.close(writer)
    os.close(reader)

    assert (tmp_path / "elsewhere/also").read_text() == "0\n"
    assert sink.dropped_lines == 0


def test_a_blocked_pipe_costs_lines_and_never_a_wait() -> None:
    reader, writer = os.pipe()
    sink = LogSink(writer, cap_bytes=500_000)
    told: list[int] = []
    sink.on_drop = told.append

    for _ in range(2_000):
        sink.write(b"x" * 1_000)
    dropped = sink.dropped_lines
    sink.close(timeout_s=0.1)

    assert dropped >= 1_400  # what the pipe swallows and what fits under the cap is all there is room for
    assert sum(told) == sink.dropped_lines
    os.close(reader)  # the thread, still in write(), gets EPIPE and goes
    sink._thread.join(5)
    assert not sink._thread.is_alive()
    os.close(writer)


@pytest.mark.parametrize(("line_bytes", "dropped"), [(0, 0), (99, 0), (100, 0), (101, 1)])
def test_the_cap_holds_to_the_byte(line_bytes: int, dropped: int) -> None:
    reader, writer = os.pipe()
    sink = LogSink(writer, cap_bytes=100)

    sink.write(b"x" * line_bytes)

    assert sink.dropped_lines == dropped
    sink.close()
    os.close(reader)
    os.close(writer)


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    sink = LogSink(full)

    sink.write(b"{}")
    sink.write(b"{}")
    sink.close()

    assert sink.dropped_lines == 2
    os.close(full)


def test_a_line_that_a_full_disk_cut_off_is_ended_before_the_next_one(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", "size=64k") as place:
        rest = fill(place, "space")
        os.truncate(rest / "zeros", 32 << 10)  # room for one line, not for two
        reader, writer = os.pipe()
        sink = LogSink(writer, str(place / "log"))

        for number in range(4):
            if number == 3:
                (rest / "zeros").unlink()
            text = json.dumps([number, "x" * 20_000]).encode()
            sink.write(text)
            assert read_line(reader) == text  # the file has what it takes of it before
        sink.close()

        lines = (place / "log").read_bytes().splitlines()
        os.close(writer)
        os.close(reader)
    assert [json.loads(line)[0] for line in (lines[0], lines[-1])] == [0, 3]
    assert sink.dropped_lines == 2


def read_line(pipe: int) -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        read += os.read(pipe, 1 << 16)
    return read[:-1]


def test_a_non_blocking_stdout_loses_nothing() -> None:
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    sink = LogSink(writer.fileno())

    for _ in range(1_000):
        sink.write(b"y" * 1_000)
    received = 0
    while received < 1_001_000:
        received += len(reader.recv(1 << 20))
    sink.close()

    assert sink.dropped_lines == 0
    reader.close()
    writer.close()


def test_lines_after_the_end_are_counted_as_dropped(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    sink = LogSink(fd)
    sink.close()

    sink.write(b"late")

    assert sink.dropped_lines == 1
    os.close(fd)
