"""What is asked: the rows of the table, with their bodies of about 1 KB and the budgets that they may cost."""

import json
from dataclasses import dataclass
from typing import Any

from bench import servers
from bench.load import Job

EVENTS, PACE_MS = 200, 5


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    floor   the row that this one is compared with; empty for nginx itself
    budget  how many times the floor it may cost
    """

    name: str
    server: str
    job: Job
    floor: str = ""
    budget: float = 0.0

    @property
    def unit(self) -> str:
        return "event" if self.job.event else "request"


def rows_of(running: dict[str, servers.Server], headers: dict[str, str]) -> list[Row]:
    """Those of the `running` servers; a row of one that does not run has port 0."""
    nginx, gateway, limited, leased = (
        running[name].port if name in running else 0 for name in ("nginx", "gateway", "limited", "leased")
    )
    plain = {"content-type": "application/json", "authorization": "Bearer bench-key"}
    ours = plain | {name.lower(): value for name, value in headers.items()}
    relay = ours | {"x-gitlab-unit-primitive": "ai_gateway_model_provider_proxy"}
    chat, proxy = "/v1/chat/completions", "/v1/proxy/openai/v1/chat/completions"
    explain = "/v1/prompts/chat/explain_code"
    dialect = "/openai/v1/chat/completions"
    one, many = _chat_body(stream=False), _chat_body(stream=True)
    same, crossing = _chat_body(stream=True, model="bench_gpt"), _chat_body(stream=True, model="bench_claude")
    mark = "some words"
    agent, agent_crossing = _agent_body("bench_claude"), _agent_body("bench_gpt")
    at_rate = {"concurrency": 8, "rate": 300.0}
    request, event, untranslated = "nginx, request", "nginx, streamed", "same dialect, streamed"
    return [
        Row(request, "nginx", Job(nginx, chat, plain, one)),
        Row("relay, request", "gateway", Job(gateway, proxy, relay, one), request, 10),
        Row("relay, with limits", "limited", Job(limited, proxy, relay, one), request, 11),
        Row("relay, leases in Redis", "leased", Job(leased, proxy, relay, one), request, 12),
        Row("chat/explain_code", "gateway", Job(gateway, explain, ours, _EXPLAIN), request, 14),
        Row("code/completions", "gateway", Job(gateway, "/v2/code/completions", ours, _COMPLETE), request, 14),
        Row(event, "nginx", Job(nginx, chat, plain, many, event=mark)),
        Row("relay, streamed", "gateway", Job(gateway, proxy, relay, many, event=mark), event, 2.6),
        Row(untranslated, "limited", Job(limited, dialect, ours, same, event=mark), event),
        Row("translated, streamed", "limited", Job(limited, dialect, ours, crossing, event=mark), untranslated, 2.5),
        Row("an agent's call", "limited", Job(limited, "/anthropic/v1/messages", ours, agent)),
        Row("an agent's call, translated", "limited", Job(limited, "/anthropic/v1/messages", ours, agent_crossing)),
        Row("nginx, 300 requests/s", "nginx", Job(nginx, chat, plain, one, **at_rate)),  # type: ignore[arg-type]
        Row("relay, 300 requests/s", "gateway", Job(gateway, proxy, relay, one, **at_rate)),  # type: ignore[arg-type]
    ]  # fmt: skip


def _chat_body(*, stream: bool, model: str = f"gpt-bench-e{EVENTS}-p{PACE_MS}") -> str:
    """About 1 KB; the model's name tells the mock provider how to stream."""
    question = "What does this function give back, and is there a shorter way to write it? " * 11
    messages = [{"role": "user", "content": question}]
    return json.dumps({"model": model, "messages": messages, "stream": stream})


def _agent_body(model: str) -> str:
    """About 170 KB, as coding agents send them after half an hour: 30 tools, 30 calls of them and what they gave."""
    member = {"type": "string", "description": "What stands here, in some words. " * 3}
    schema = {"type": "object", "properties": {f"member_{at}": member for at in range(8)}, "required": ["member_0"]}
    about = "Does something useful with files. " * 20
    tools = [{"name": f"tool_{at}", "description": about, "input_schema": schema} for at in range(30)]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Please mend the tests. " * 20}]
    for at in range(30):
        call = {"type": "tool_use", "id": f"toolu_{at}", "name": f"tool_{at}", "input": {"member_0": "sums.py"}}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{at}", "content": [_text(_CODE * 40)]}
        messages.append({"role": "assistant", "content": [_text("I look at the file. " * 5), call]})
        messages.append({"role": "user", "content": [result]})
    system = [_text("You are an agent that works with files. " * 200)]
    return json.dumps({"model": model, "max_tokens": 1000, "system": system, "messages": messages, "tools": tools})


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


_CODE = "def add(first, second):\n    total = first + second\n    return total\n\n\n"
_EXPLAIN = json.dumps(
    {
        "inputs": {
            "input": "Explain the code",
            "selected_text": _CODE * 6,
            "file_content": _CODE * 6,
            "language_info": "The code is written in Python.",
        },
        "stream": False,
    }
)
_COMPLETE = json.dumps(
    {
        "prompt_version": 1,
        "project_path": "group/project",
        "project_id": 1,
        "current_file": {
            "file_name": "sums.py",
            "language_identifier": "python",
            "content_above_cursor": _CODE * 10 + "def add_three(",
            "content_below_cursor": "\n" + _CODE * 2,
        },
        "stream": False,
    }
)
