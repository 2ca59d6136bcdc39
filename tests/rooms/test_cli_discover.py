"""`torana models discover`: a server's own list becomes records that the catalogue takes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.support.http_server import Answering, LoopbackServer, Request

from torana.catalog.load import load_catalogue
from torana.cli import main

LIST = {
    "object": "list",
    "data": [
        {"id": "Qwen/Qwen2.5-Coder-7B", "object": "model", "max_model_len": 32000},
        {"id": "org/chat:latest", "context_length": 8192, "name": "Chat, the latest"},
        {"id": "other/chat:latest"},
        {"id": "nomic-embed-text"},
    ],
}


class Server:
    """Answers by path; keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.key = ""
        self.requests: list[Request] = []
        self.server = LoopbackServer(self._handle)

    async def _handle(self, request: Request, answering: Answering) -> None:
        self.requests.append(request)
        status, value = (200, self.answers[request.path]) if request.path in self.answers else (404, {})
        if self.key and request.header("authorization") != f"Bearer {self.key}":
            status, value = 401, {}
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        await answering.whole(status, content, [("Content-Type", "application/json")])


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.server.start()
    yield server
    await server.server.aclose()


Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    env = dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "AIGW_CATALOG"))

    async def invoke(*args: str, **more: str) -> Result:
        return await asyncio.to_thread(CliRunner(env={**env, **more}).invoke, main, ["models", "discover", *args])

    return invoke


def parts(output: str) -> tuple[str, str]:
    """The two files in what was printed."""
    _, providers, models = output.split("# ---")[0], *output.split(" ---\n")[1:]
    return providers.partition("\n# --- ")[0], models


@pytest.mark.parametrize("name", ["max_model_len", "context_length", "context_window", "max_context_length"])
async def test_how_much_a_model_reads_is_read_by_each_vendors_name(server: Server, run: Run, name: str) -> None:
    server.answers["/v1/models"] = {"data": [{"id": "org/chat", "active": True, name: 131072}]}

    assert "input_limit: 131072" in (await run(server.server.url)).stdout


async def test_a_list_that_stands_alone_is_one_and_what_has_no_name_is_passed_over(server: Server, run: Run) -> None:
    server.answers["/v1/models"] = [{"id": "org/chat", "context_length": 8192}, {"id": None}, {"object": "model"}]

    result = await run(server.server.url, "--json")

    assert result.exit_code == 0
    assert [each["id"] for each in json.loads(result.stdout)["models"]] == ["org/chat"]


async def test_a_pattern_that_fits_no_name_is_told_the_names(server: Server, run: Run) -> None:
    server.answers["/v1/models"] = [{"id": "org/chat"}, {"id": "org/code"}]

    result = await run(server.server.url, "--match", "Chat")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "none of its 2 models has 'Chat' in its name; they begin: org/chat, org/code" in result.stderr


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_what_it_prints_is_a_catalogue(server: Server, run: Run, tmp_path: Path, path: str) -> None:
    server.answers["/v1/models"] = LIST

    result = await run(f"{server.server.url}{path}", "--provider", "rack")

    assert result.exit_code == 0, result.output
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "providers.yml").write_text(parts(result.output)[0])
    (folder / "models.yml").write_text(parts(result.output)[1])
    catalogue = load_catalogue([folder])
    assert catalogue.providers["rack"].base_url == server.server.url
    coder = catalogue.models["qwen2_5_coder_7b"]
    assert (coder.families, coder.input_limit, coder.stage) == (("qwen2p5-coder-7b",), 32000, "registered")
    assert catalogue.models["chat_latest"].title == "Chat, the latest"
    assert catalogue.models["other_chat_latest"].deployments[0].model == "other/chat:latest"
    assert "# - name: nomic_embed_text" in result.output


async def test_names_that_yaml_would_not_take_for_texts_are_written_as_such(
    server: Server, run: Run, tmp_path: Path
) -> None:
    server.answers["/v1/models"] = {"data": [{"id": "lab/7"}, {"id": "lab/1e5"}, {"id": "null"}]}

    result = await run(server.server.url, "--provider", "rack")

    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "providers.yml").write_text(parts(result.output)[0])
    (folder / "models.yml").write_text(parts(result.output)[1])
    assert {"7", "1e5", "null"} <= load_catalogue([folder]).models.keys()


async def test_a_server_that_lists_models_as_anthropic_does_is_asked_in_its_format(server: Server, run: Run) -> None:
    model = {"type": "model", "id": "our-claude", "display_name": "Claude", "created_at": "2026-01-01T00:00:00Z"}
    server.answers["/v1/models"] = {"data": [model], "has_more": False}

    result = await run(server.server.url, "--provider", "mirror")

    assert result.exit_code == 0
    assert "- name: mirror\n  dialect: messages\n" in result.stdout


async def test_it_says_which_address_works_and_what_a_client_must_name(server: Server, run: Run) -> None:
    server.answers["/v1/models"] = LIST

    result = await run(server.server.url)

    url = server.server.url
    assert f"# {url}/v1/models: works\n# {url}/models: status 404\n" in result.output
    assert f"# as an endpoint that a client names: {url}/v1\n" in result.output


async def test_a_server_without_v1_is_found_too(server: Server, run: Run) -> None:
    server.answers["/models"] = LIST

    told = json.loads((await run(f"{server.server.url}/v1", "--json")).output)

    assert told["client_url"] == server.server.url
    assert [each["id"] for each in told["models"]] == [row["id"] for row in LIST["data"]]


async def test_ollamas_own_list_is_read_where_there_is_no_other(server: Server, run: Run) -> None:
    server.answers["/api/tags"] = {"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}]}

    told = json.loads((await run(server.server.url, "--json")).output)

    assert [(each["id"], each["name"]) for each in told["models"]] == [("qwen3:8b", "qwen3_8b")]
    assert 'model: "qwen3:8b"' in told["models_yml"]


async def test_a_llama_cpp_server_is_believed_about_what_it_was_started_with(server: Server, run: Run) -> None:
    def limit(result: Result) -> int:
        (model,) = json.loads(result.output)["models"]
        return int(model["input_limit"])

    server.answers["/v1/models"] = {"data": [{"id": "coder.gguf", "meta": {"n_ctx_train": 131072}}]}
    silent = await run(server.server.url, "--json")
    server.answers["/props"] = {"default_generation_settings": {"n_ctx": 8192}}
    told = await run(server.server.url, "--json")
    server.answers["/props"] = {"default_generation_settings": {"n_ctx": 0}}
    odd = await run(server.server.url, "--json")
    server.answers["/props"] = b'{"default_generation_settings": {"n_ctx": 1e999}}'
    endless = await run(server.server.url, "--json")

    assert [limit(result) for result in (silent, told, odd, endless)] == [131072, 8192, 131072, 131072]


async def test_half_a_letter_in_a_servers_list_is_told_as_its_escape(server: Server, run: Run) -> None:
    server.answers["/v1/models"] = b'{"data": [{"id": "org/chat", "name": "half \\udc00 of \\ud83d"}]}'
    for flags in ([], ["--json"]):
        result = await run(server.server.url, *flags)
        assert result.exit_code == 0
        assert r"half \udc00 of \ud83d" in result.output


async def test_the_key_is_read_from_the_variable_that_is_named(server: Server, run: Run) -> None:
    server.answers["/v1/models"] = LIST
    server.key = "s3cret"

    without = await run(server.server.url)
    wrong = await run(server.server.url, "--api-key-env", "RACK_API_KEY", RACK_API_KEY="other")
    right = await run(server.server.url, "--api-key-env", "RACK_API_KEY", RACK_API_KEY="s3cret")

    assert (without.exit_code, wrong.exit_code, right.exit_code) == (1, 1, 0)
    assert "name that with --api-key-env" in without.output
    assert "the server refuses the key in RACK_API_KEY" in wrong.output
    assert "key_env: RACK_API_KEY" in right.output
    assert "s3cret" not in right.output


async def test_a_vendor_of_the_catalogue_is_greeted_in_its_own_way_with_its_own_key(server: Server, run: Run) -> None:
    server.answers["/v1/models"] = {"data": [{"type": "model", "id": "claude-new-1", "display_name": "Claude New"}]}

    result = await run(server.server.url, ANTHROPIC_BASE_URL=server.server.url, ANTHROPIC_API_KEY="the-key")

    assert result.exit_code == 0
    assert "deployments: [{provider: anthropic, model: claude-new-1}]" in result.stdout
    assert {request.header("x-api-key") for request in server.requests} == {"the-key"}
    assert {request.header("anthropic-version") for request in server.requests} == {"2023-06-01"}
    assert {request.header("authorization") for request in server.requests} == {None}


async def test_a_variable_that_is_not_set_is_wrong_usage(server: Server, run: Run) -> None:
    result = await run(server.server.url, "--api-key-env", "RACK_API_KEY")

    assert result.exit_code == 2
    assert server.requests == []


async def test_an_address_where_nothing_answers_gets_a_remedy(run: Run) -> None:
    result = await run("http://127.0.0.1:9")

    assert result.exit_code == 1
    assert "is the server running" in result.output
    assert [(await run(url)).exit_code for url in ("127.0.0.1:9", "http://[::1")] == [2, 2]


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ({"data": []}, "serves no model yet"),
        (b"<html>", "something answers, but no model server"),
        ([1], "something answers, but no model server"),
        (b"[" * 100_000, "something answers, but no model server"),
    ],
)
async def test_a_server_that_tells_no_models_gets_a_remedy(server: Server, run: Run, value: Any, remedy: str) -> None:
    server.answers["/v1/models"] = value

    told, as_json = await run(server.server.url), await run(server.server.url, "--json")

    assert (told.exit_code, as_json.exit_code, told.stdout) == (1, 1, "")
    assert remedy in told.stderr
    assert remedy in json.loads(as_json.stdout)["remedy"]


async def test_models_that_the_catalogue_has_are_not_listed_again(server: Server, run: Run) -> None:
    server.answers["/v1/models"] = {"data": [{"id": "gpt-5.2-2025-12-11"}, {"id": "new-model"}]}

    env = {"OPENAI_BASE_URL": f"{server.server.url}/v1", "OPENAI_API_KEY": "k"}
    result = await run(server.server.url, **env)

    assert "# gpt-5.2-2025-12-11 is there already, as gpt_5_2." in result.output
    assert "deployments: [{provider: openai, model: new-model}]" in result.output
    assert "providers.yml" not in result.output
    assert server.requests[0].header("authorization") == "Bearer k"


async def test_a_provider_of_the_catalogue_at_another_address_is_told_of(
    server: Server, run: Run, tmp_path: Path
) -> None:
    server.answers["/v1/models"] = {"data": [{"id": "llama3"}]}
    row = "- {name: shelf, dialect: chat_completions, base_url: 'http://127.0.0.1:9'}\n"
    (tmp_path / "providers.yml").write_text(row)

    by_variable = await run(server.server.url, "--provider", "ollama")
    fixed = await run(server.server.url, "--provider", "shelf", "--catalog", str(tmp_path), "--json")

    told = f"# ollama is in the catalogue, and is asked here only with OLLAMA_BASE_URL={server.server.url}\n"
    assert told in by_variable.output
    assert json.loads(fixed.output)["note"].endswith("choose another name with --provider")
    assert "in the catalogue" not in (await run(server.server.url, "--provider", "rack")).output
    known = await run(server.server.url, OLLAMA_BASE_URL=server.server.url)
    assert "provider: ollama" in known.output
    assert "in the catalogue" not in known.output
