"""Token budgets of code suggestions: counted with the model's own tokenizer where there is one (contract 6.5)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.tokenizers import WORDS, write_tokenizer
from tokenizers import Tokenizer

INPUT_LIMIT, OUTPUT = 1_000, 128
ROOM = INPUT_LIMIT - OUTPUT
DENSE = "".join(f"x{number} = '§{number:x}'\n" for number in range(2_000))
SPARSE = WORDS * 200
"""A token of DENSE is about a byte, one of SPARSE about eight: the estimate is wrong about both."""

StartCounting = Callable[..., Any]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    return folder


@pytest.fixture
def tokenizer(catalogue: Path) -> Tokenizer:
    return write_tokenizer(catalogue / "tokenizer.json")


@pytest.fixture
def start(start_gateway: StartGateway, catalogue: Path, tokenizer: Tokenizer) -> StartCounting:
    """Starts a gateway whose families know their tokenizer."""

    async def run(*, counts: bool = True, limit: int = INPUT_LIMIT) -> RunningGateway:
        named = "tokenizer: tokenizer.json, " if counts else ""
        (catalogue / "models.yml").write_text(
            "families:\n"
            f"- {{name: codegemma, {named}input_limit: {limit}, fill_in: codegemma}}\n"
            f"- {{name: llama3, {named}input_limit: {limit}}}\n"
        )
        return await start_gateway(env={"AIGW_CATALOG": str(catalogue), "AIGW_CUSTOM_MODELS__ENABLED": "true"})

    return run


async def complete(gateway: RunningGateway, family: str, above: str, below: str = "", **members: Any) -> Answer:
    file = {"file_name": "app.py", "content_above_cursor": above, "content_below_cursor": below}
    asked = {
        "prompt_version": 2, "current_file": file, "model_provider": "litellm", "model_name": family,
        "model_endpoint": f"{gateway.provider.url}/own/v1", "model_identifier": "custom_openai/own", **members,
    }  # fmt: skip
    answer = await gateway.post("/v2/completions", json=asked, token=gateway.token(unit_primitives=["complete_code"]))
    assert answer.status == 200
    return answer


def texts_sent(gateway: RunningGateway) -> list[str]:
    (request,) = gateway.provider.requests
    body = request.json()
    return [body["prompt"]] if "prompt" in body else [message["content"] for message in body["messages"]]


def count(tokenizer: Tokenizer, gateway: RunningGateway) -> int:
    return sum(len(tokenizer.encode(text)) for text in texts_sent(gateway))


@pytest.mark.parametrize("code", [DENSE, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("family", ["codegemma", "llama3"])
async def test_a_long_file_fills_the_models_input_and_never_more(
    start: StartCounting, tokenizer: Tokenizer, family: str, code: str
) -> None:
    gateway = await start()

    await complete(gateway, family, code + "cursor_here(", "after_here\n" + code)

    assert ROOM * 0.8 < count(tokenizer, gateway) <= ROOM
    sent = "".join(texts_sent(gateway))
    assert code[-40:] + "cursor_here(" in sent
    assert "after_here\n" + code[:8] in sent


async def test_the_estimate_alone_is_wrong_about_dense_code(start: StartCounting, tokenizer: Tokenizer) -> None:
    gateway = await start(counts=False)

    await complete(gateway, "codegemma", DENSE)

    assert count(tokenizer, gateway) > INPUT_LIMIT


async def test_without_a_tokenizer_markers_and_instructions_are_part_of_the_estimate(start: StartCounting) -> None:
    gateway = await start(counts=False)

    await complete(gateway, "llama3", SPARSE + "cursor_here(")

    assert sum(len(text.encode()) for text in texts_sent(gateway)) <= ROOM * 3.5
    assert "cursor_here(" in "".join(texts_sent(gateway))


async def test_attachments_get_what_the_file_leaves_by_count(start: StartCounting, tokenizer: Tokenizer) -> None:
    gateway = await start()
    context = [{"type": "file", "name": "b.py", "content": DENSE}]

    answer = await complete(gateway, "codegemma", "x = 1\n", context=context)

    assert ROOM * 0.8 < count(tokenizer, gateway) <= ROOM
    told = answer.json()["model"]["tokens_consumption_metadata"]
    assert 0 < told["context_tokens_used"] < told["context_tokens_sent"]


async def test_the_named_prompt_for_completions_is_cut_by_count_too(start: StartCounting, tokenizer: Tokenizer) -> None:
    gateway = await start()
    inputs = {"prefix": DENSE + "cursor_here(", "suffix": "", "file_name": "app.py", "language": "python"}
    own = {"provider": "openai", "name": "codegemma", "endpoint": f"{gateway.provider.url}/own/v1"}

    answer = await gateway.post(
        "/v1/prompts/code_suggestions/completions",
        json={"inputs": inputs, "model_metadata": own},
        token=gateway.token(unit_primitives=["complete_code"]),
    )

    assert answer.status == 200
    assert count(tokenizer, gateway) <= INPUT_LIMIT
    assert "cursor_here(" in texts_sent(gateway)[0]


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize(
    ("kind", "above", "below"),
    [
        ("completions", "prefix", "suffix"),
        ("generations", "prefix", "suffix"),
        ("generations", "trimmed_content_above_cursor", "trimmed_content_below_cursor"),
    ],
)
async def test_named_prompts_for_code_are_cut_where_the_model_is_instructed(
    start: StartCounting, tokenizer: Tokenizer, kind: str, above: str, below: str, counts: bool
) -> None:
    gateway = await start(counts=counts, limit=5_000)
    inputs = {"prefix": "", above: SPARSE + "cursor_here(", below: "after_here\n" + SPARSE, "instruction": "go on"}
    own = {"provider": "openai", "name": "llama3", "endpoint": f"{gateway.provider.url}/own/v1", "identifier": "m"}

    answer = await gateway.post(
        f"/v1/prompts/code_suggestions/{kind}",
        json={"inputs": inputs, "model_metadata": own},
        token=gateway.token(unit_primitives=["complete_code", "generate_code"]),
    )

    assert answer.status == 200
    sent = "".join(texts_sent(gateway))
    tokens = count(tokenizer, gateway) if counts else len(sent.encode()) / 3.5
    output = gateway.provider.requests[0].json().get("max_tokens", 128)
    assert 500 < tokens <= 5_000 - output
    assert "cursor_here(" in sent
    assert "after_here\n" in sent


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (None, "cannot be read (FileNotFoundError), expected a readable file"),
        ("{}", "expected a `tokenizer.json`"),
    ],
)
async def test_a_tokenizer_that_is_none_is_named_with_its_record(
    start: StartCounting, catalogue: Path, written: str | None, told: str
) -> None:
    from torana.errors import BadCatalogue

    (catalogue / "tokenizer.json").unlink()
    if written is not None:
        (catalogue / "tokenizer.json").write_text(written)

    with pytest.raises(BadCatalogue) as raised:
        await start()

    assert raised.value.problems[0].startswith(f"{catalogue}/models.yml:2: codegemma: ")
    assert told in raised.value.problems[0]


async def test_a_reload_takes_a_new_tokenizer(start: StartCounting, catalogue: Path) -> None:
    gateway = await start()
    bytes_only = json.loads((catalogue / "tokenizer.json").read_text())
    bytes_only["model"]["merges"] = []
    (catalogue / "tokenizer.json").write_text(json.dumps(bytes_only))

    assert await gateway.running.reloader.reload()
    await complete(gateway, "codegemma", SPARSE)

    assert len(texts_sent(gateway)[0].encode()) <= INPUT_LIMIT + 60


@pytest.mark.parametrize("counts", [True, False])
async def test_what_the_client_trimmed_itself_is_cut_with_the_file(
    start: StartCounting, tokenizer: Tokenizer, counts: bool
) -> None:
    gateway = await start(counts=counts, limit=4_000)
    above, below = SPARSE + "cursor_here(", "after_here\n" + SPARSE
    payload = {
        "file_name": "app.py", "content_above_cursor": above, "content_below_cursor": below,
        "prompt_id": "code_suggestions/generations", "prompt_version": "^1.0.0",
        "prompt_enhancer": {"trimmed_content_above_cursor": above, "trimmed_content_below_cursor": below},
    }  # fmt: skip
    own = {"provider": "openai", "name": "llama3", "endpoint": f"{gateway.provider.url}/own/v1", "identifier": "m"}

    answer = await gateway.post(
        "/v3/code/completions",
        json={
            "prompt_components": [{"type": "code_editor_generation", "payload": payload}],
            "model_metadata": own,
        },
        token=gateway.token(unit_primitives=["generate_code"]),
    )

    assert answer.status == 200
    sent = "".join(texts_sent(gateway))
    tokens = count(tokenizer, gateway) if counts else len(sent.encode()) / 3.5
    assert 1_000 < tokens <= 4_000 - gateway.provider.requests[0].json()["max_tokens"]
    assert "cursor_here(" in sent
    assert "after_here\n" in sent
