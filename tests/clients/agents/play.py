"""Coding agents, unmodified and headless, against a gateway with a scripted vendor of every dialect behind it.

Each agent gets one task: read a note with its own tool, and answer. The vendor's first answer asks for the tool, the
second one is text. What the agent printed and what reached the vendor is checked. Run by `../node/run`; with
`--record` the table of docs/compatibility.md is written anew.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tests.clients.behind import BEHIND, stand_behind
from tests.clients.conftest import access_for, sdk_token
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider
from tests.support.saying import PIECES, ToolUse

HERE = Path(__file__).parent
BIN = HERE / "node_modules" / ".bin"
PAGE = HERE.parents[2] / "docs" / "compatibility.md"
TEXT = "".join(PIECES)
NOTE = "There is snow in Tromsø"
PATIENCE_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One task of one agent."""

    agent: str
    front: str
    """Where it is pointed: a prefix of the gateway."""
    model: str
    arrives_at: str
    """How the vendor's path begins."""
    command: Callable[[Path, str], list[str]]
    """(home, model) → what is run, in `home`."""
    prepare: Callable[[Path, str, RunningGateway], dict[str, str]]
    """Writes the agent's settings into `home`; → its environment."""
    tool: Callable[[Path], ToolUse]
    """Its own way to read the note."""


def claude(home: Path, model: str) -> list[str]:
    return [str(BIN / "claude"), "-p", "Read note.txt", "--model", model, "--allowedTools", "Read"]


def claude_env(base: str) -> Callable[[Path, str, RunningGateway], dict[str, str]]:
    def prepare(home: Path, model: str, gateway: RunningGateway) -> dict[str, str]:
        env = {
            "ANTHROPIC_BASE_URL": gateway.url + base,
            "ANTHROPIC_AUTH_TOKEN": sdk_token(gateway),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        if base == PROXY_ANTHROPIC:
            headers = access_for(gateway, env["ANTHROPIC_AUTH_TOKEN"]).headers
            env["ANTHROPIC_CUSTOM_HEADERS"] = "\n".join(f"{name}: {value}" for name, value in headers.items() if value)
        return env

    return prepare


def codex(home: Path, model: str) -> list[str]:
    # The sandbox wants namespaces of the kernel, which containers seldom have.
    return [
        *(str(BIN / "codex"), "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
        "Read note.txt",
    ]


def codex_env(base: str) -> Callable[[Path, str, RunningGateway], dict[str, str]]:
    def prepare(home: Path, model: str, gateway: RunningGateway) -> dict[str, str]:
        token = sdk_token(gateway)
        lines = [
            f'model = "{model}"',
            'model_provider = "torana"',
            "[model_providers.torana]",
            'name = "torana"',
            f'base_url = "{gateway.url}{base}/v1"',
            'wire_api = "responses"',
            'env_key = "TORANA_TOKEN"',
        ]
        if base == PROXY_OPENAI:
            headers = access_for(gateway, token).headers
            pairs = ", ".join(f'"{name}" = "{value}"' for name, value in headers.items() if value)
            lines.append(f"http_headers = {{ {pairs} }}")
        folder = home / ".codex"
        folder.mkdir()
        (folder / "config.toml").write_text("\n".join(lines) + "\n")
        return {"TORANA_TOKEN": token}

    return prepare


def opencode(home: Path, model: str) -> list[str]:
    return [str(BIN / "opencode"), "run", "-m", f"torana/{model}", "Read note.txt"]


def opencode_env(home: Path, model: str, gateway: RunningGateway) -> dict[str, str]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{gateway.url}/openai/v1", "apiKey": "{env:TORANA_TOKEN}"},
        "models": {model: {}},
    }
    settings = {
        "autoupdate": False,
        "share": "disabled",
        # A title would be asked for beside the task, and take the vendor's first answer.
        "agent": {"title": {"disable": True}},
    }
    (home / "opencode.json").write_text(json.dumps({**settings, "provider": {"torana": provider}}))
    return {
        "TORANA_TOKEN": sdk_token(gateway),
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
    }


PROXY_ANTHROPIC, PROXY_OPENAI = "/v1/proxy/anthropic", "/v1/proxy/openai"


def read_of(name: str, member: str) -> Callable[[Path], ToolUse]:
    return lambda home: ToolUse(name=name, arguments={member: str(home / "note.txt")}, id="call_1")


def cat(home: Path) -> ToolUse:
    return ToolUse(name="exec_command", arguments={"cmd": "cat note.txt"}, id="call_1")


def all_turns() -> list[Turn]:
    turns = []
    for model, (_, _, path) in BEHIND.items():
        turns += [
            Turn(
                agent="Claude Code", front="/anthropic", model=model, arrives_at=path,
                command=claude, prepare=claude_env("/anthropic"), tool=read_of("Read", "file_path"),
            ),
            Turn(
                agent="Codex", front="/openai", model=model, arrives_at=path,
                command=codex, prepare=codex_env("/openai"), tool=cat,
            ),
            Turn(
                agent="OpenCode", front="/openai", model=model, arrives_at=path,
                command=opencode, prepare=opencode_env, tool=read_of("read", "filePath"),
            ),
        ]  # fmt: skip
    turns += [
        Turn(
            agent="Claude Code", front=PROXY_ANTHROPIC, model="claude-sonnet-4-6", arrives_at="/v1/messages",
            command=claude, prepare=claude_env(PROXY_ANTHROPIC), tool=read_of("Read", "file_path"),
        ),
        Turn(
            agent="Codex", front=PROXY_OPENAI, model="gpt-5-codex", arrives_at="/v1/responses",
            command=codex, prepare=codex_env(PROXY_OPENAI), tool=cat,
        ),
    ]  # fmt: skip
    return sorted(turns, key=lambda turn: turn.agent)


def make_home(home: Path) -> Path:
    home.mkdir()
    (home / "note.txt").write_text(NOTE + "\n")
    return home


async def play(turn: Turn) -> list[str]:
    """What was not as promised; empty when all was well."""
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder, "home"))
        async with ScriptedProvider() as provider, FakeIssuer() as issuer:
            env = stand_behind(provider.url, Path(folder, "overlay")) | {"AIGW_LOGGING__LEVEL": "WARNING"}
            async with running_gateway(provider, issuer, Path(folder, "state"), env) as gateway:
                provider.answer_with(text="I read it.", tool_call=turn.tool(home), times=1)
                said, complaints = await run(turn, home, turn.prepare(home, turn.model, gateway))
                return complaints + check(turn, said, provider)


async def run(turn: Turn, home: Path, more: dict[str, str]) -> tuple[str, list[str]]:
    """What the agent printed, and a complaint if it failed."""
    # Only what Node needs: the real environment may hold keys and addresses of real services.
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "NO_COLOR": "1", **more}
    agent = await asyncio.create_subprocess_exec(
        *turn.command(home, turn.model), cwd=home, env=env,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(agent.communicate(), timeout=PATIENCE_S)
    except TimeoutError:
        agent.kill()
        await agent.wait()
        return "", [f"no end within {PATIENCE_S} s"]
    failed = [f"exit {agent.returncode}: {(err or out).decode()[-800:]}"] if agent.returncode else []
    return out.decode(), failed


def check(turn: Turn, said: str, provider: ScriptedProvider) -> list[str]:
    wrong = []
    if TEXT not in said:
        wrong.append(f"it did not print the answer: {said[-400:]!r}")
    calls = [request for request in provider.requests if not request.path.endswith("/count_tokens")]
    if len(calls) < 2:
        return [*wrong, f"the vendor was asked {len(calls)} times"]
    if any(not request.path.startswith(turn.arrives_at) for request in calls):
        wrong.append(f"the vendor was asked at {[request.path for request in calls]}")
    last = calls[-1].body
    if not any(form in last for form in (NOTE.encode(), json.dumps(NOTE)[1:-1].encode())):
        wrong.append("the note did not reach the model")
    for request in provider.requests:
        if any(name.lower().startswith(b"x-gitlab") or b"eyJ" in value for name, value in request.headers):
            wrong.append("a header of the client's reached the vendor")
    return wrong


def versions() -> dict[str, str]:
    """The pinned packages."""
    found = json.loads((HERE / "package.json").read_text())["dependencies"]
    sdks = json.loads((HERE.parent / "node" / "package.json").read_text())["dependencies"]
    return {**sdks, **found}


PACKAGES = {"Claude Code": "@anthropic-ai/claude-code", "Codex": "@openai/codex", "OpenCode": "opencode-ai"}
TABLE_BEGINS, TABLE_ENDS = "<!-- table of `make clients ARGS=--record` -->\n", "<!-- end of table -->\n"


def write_table(results: list[tuple[Turn, list[str]]]) -> str:
    node = subprocess.run(["node", "--version"], capture_output=True, check=True, text=True).stdout.strip()
    rows = [
        f"Last run: {date.today():%Y-%m-%d}, Node {node}.",
        "",
        "| agent | package | pointed at | provider behind speaks | |",
        "|---|---|---|---|---|",
    ]
    for turn, complaints in results:
        package = PACKAGES[turn.agent]
        behind = turn.model.removeprefix("by_") if turn.model in BEHIND else f"as it came: `{turn.arrives_at}`"
        rows.append(
            f"| {turn.agent} | `{package}` {versions()[package]} | `{turn.front}` | {behind} "
            f"| {'works' if not complaints else 'FAILS'} |"
        )
    return "\n".join(rows) + "\n"


def record(results: list[tuple[Turn, list[str]]]) -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(TABLE_BEGINS)
    _, _, after = rest.partition(TABLE_ENDS)
    PAGE.write_text(before + TABLE_BEGINS + "\n" + write_table(results) + "\n" + TABLE_ENDS + after)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="write the table of docs/compatibility.md anew")
    parser.add_argument("--only", default="", help="agents whose name begins so")
    asked = parser.parse_args()
    results = []
    for turn in all_turns():
        if not turn.agent.lower().startswith(asked.only.lower()):
            continue
        complaints = await play(turn)
        print(f"{'FAIL' if complaints else 'ok  '} {turn.agent} at {turn.front}, {turn.model}", flush=True)
        for complaint in complaints:
            print(f"     {complaint}", file=sys.stderr, flush=True)
        results.append((turn, complaints))
    if asked.record:
        record(results)
    return 1 if any(complaints for _, complaints in results) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
