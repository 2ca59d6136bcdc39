"""The head of a prompt, the same for everybody, is marked for the provider's cache, unless the instance says no."""

from typing import Any

import pytest
from tests.support.gateway import RunningGateway

one_gateway = pytest.mark.asyncio(loop_scope="session")

SCOPES = ("complete_code", "generate_code", "explain_code")
FILE = {"file_name": "app.py", "content_above_cursor": "def add(a, b):\n    ", "content_below_cursor": ""}
MARK = {"type": "ephemeral"}
OWN = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Complete: def add"}]
EXPLAIN = {"input": "Why?", "selected_text": "x = 1", "file_content": "", "language_info": ""}
ASKED: dict[str, Any] = {
    "/v2/code/completions": {"prompt_version": 1, "current_file": FILE},
    "/v2/code/generations": {"prompt_version": 3, "current_file": FILE, "prompt": OWN, "model_provider": "anthropic"},
    "/v1/prompts/code_suggestions%2Fgenerations": {
        "prompt_version": "3.0.0",
        "inputs": {"prefix": "a", "suffix": "", "file_name": "a.py", "language": "python", "instruction": "b"},
    },
    "/v1/prompts/chat%2Fexplain_code": {"inputs": EXPLAIN},
}


async def system_of(gateway: RunningGateway, path: str, said: str | None) -> Any:
    headers = {} if said is None else {"X-Gitlab-Model-Prompt-Cache-Enabled": said}
    answer = await gateway.post(path, json=ASKED[path], token=gateway.token(unit_primitives=SCOPES), headers=headers)
    assert answer.status == 200, answer.text
    return gateway.provider.requests[-1].json()["system"]


@one_gateway
@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("said", [None, "true", "yes"])
async def test_the_head_of_a_prompt_is_marked(shared: RunningGateway, path: str, said: str | None) -> None:
    system = await system_of(shared, path, said)

    assert system[0]["cache_control"] == MARK
    assert sum("cache_control" in block for block in system) == 1


@one_gateway
@pytest.mark.parametrize("path", ASKED)
async def test_an_instance_that_wants_no_cache_gets_none(shared: RunningGateway, path: str) -> None:
    assert isinstance(await system_of(shared, path, "false"), str)
