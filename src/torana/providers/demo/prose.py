"""Answers in words. They say first that they are a demo's, then only what can be known without a model."""

import re
from collections import Counter
from collections.abc import Iterable

from torana.chat import ChatRequest
from torana.providers.demo.languages import guess_language, read_language
from torana.providers.demo.question import find_code, find_question

DEMO_SENTENCE = "This is torana's built-in demo, not an AI model."
REACT_LEAD = "Thought: No large model is configured, so I answer with what I have.\nFinal Answer: "
HOW_TO_GO_ON = (
    "For real answers, configure a provider and start the gateway again: set `ANTHROPIC_API_KEY`, or "
    "`OPENAI_API_KEY`, or `OPENAI_BASE_URL` for any server that speaks OpenAI's API."
)
LOOKED_AT_CHARS = 20_000
MAX_NAMES = 8
QUOTED_WORDS = 12

_FUNCTIONS = re.compile(
    r"^[ \t]*(?:(?:export|default|async|pub|public|private|protected|static|final|override|suspend"
    r"|def|fn|func|fun|function) )+"
    r"(?:\([^)\n]{0,80}\) ?)?(?:[\w<>\[\].,]+ )?(\w+[?!]?) ?(?=\(|$)",
    re.MULTILINE,
)
_CLASSES = re.compile(
    r"\b(?:class|struct|interface|trait|enum|module) ([A-Z]\w*)|^type (\w+) (?:struct|interface)", re.MULTILINE
)
_IMPORTS = re.compile(
    r"^[ \t]*(?:import|from|use|using|require|require_relative|#include)\b[ (]*[\"'<]?([\w./:@-]+)", re.MULTILINE
)


def answer_text(chat: ChatRequest) -> str:
    code = find_code(chat.messages)
    if not code and chat.fill_in:
        code = chat.fill_in.prefix
    question = find_question(chat.messages)
    about = _explain_code(code[:LOOKED_AT_CHARS]) if code.strip() else _quote(question)
    return f"{DEMO_SENTENCE} {about}\n\n{HOW_TO_GO_ON}"


def answer_react(chat: ChatRequest) -> str:
    """The same in the ReAct text form."""
    return REACT_LEAD + answer_text(chat)


def _quote(question: str) -> str:
    words = question.split()
    if not words:
        return "It has no question to answer here."
    # Backticks would end the code span of the quotation.
    quoted = " ".join(word[:40] for word in words[:QUOTED_WORDS]).replace("`", "'")
    more = " …" if len(words) > QUOTED_WORDS else ""
    return f"You asked: “{quoted}{more}”. The demo cannot know the answer; your request did reach it."


def _explain_code(code: str) -> str:
    language = guess_language(code)
    lines = code.split("\n")
    blank = sum(not line.strip() for line in lines)
    subject = f"{language} code" if language else "text"
    facts = [f"What can be seen in the {subject} without a model:", ""]
    facts.append(f"- It has {len(lines)} {'line' if len(lines) == 1 else 'lines'}, {blank} of them blank.")
    for title, found in (
        ("It uses", _unique(_IMPORTS.findall(code))),
        ("Types", _unique(first or second for first, second in _CLASSES.findall(code))),
        ("Functions", _unique(_FUNCTIONS.findall(code))),
        ("The most frequent names", _frequent(code, language)),
    ):
        if found:
            facts.append(f"- {title}: {', '.join(f'`{name}`' for name in found[:MAX_NAMES])}.")
    return "\n".join(facts)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _frequent(code: str, language: str) -> list[str]:
    keywords = read_language(language or "python").words
    counts = Counter(word for word in re.findall(r"[^\W\d]\w{2,40}", code) if word not in keywords)
    return [word for word, count in counts.most_common(MAX_NAMES) if count > 1]
