"""How vendors say that a prompt, or it and the answer it asks for, is longer than their model reads.

Each pattern is from the error pages, sources or answers of those named beside it.
"""

import re
from typing import NamedTuple

_MAX_CHARS = 2_000
"""Of an error that is looked at. It is the word of whoever runs the server: a long one could take minutes."""

_TOLD = re.compile(
    r"context ?(length|window|limit|size)"  # OpenAI, vLLM, SGLang, Mistral, OpenRouter, llama.cpp, LM Studio, …
    r"|(prompt|input) is too long|prompt too long"  # Anthropic, Bedrock, Fireworks; Ollama
    r"|input (token count|tokens exceed)|prompt token count|too many (input )?tokens"  # Gemini, OpenAI, Nova; Cohere
    r"|maximum (model|prompt|input) length|input length \(\d+"  # vLLM, xAI, OpenAI's embeddings; SGLang
    r"|reduce the length of the (input|messages|prompt)"  # Groq, Cerebras
    r"|input tokens \d+ cannot exceed the total tokens"  # watsonx
    r"|reduce your message size"  # Groq, for more than it takes in a minute: no wait helps
    r"|inputs\W+(tokens \+|must have less than)"  # Hugging Face's TGI, Together
    r"|max \d+ tokens per request"  # OpenAI's embeddings
    r"|exceeds? the (maximum|available)[a-z ]* (tokens|context)"
    r"|exceeded model token limit|prompt exceeds max|range of input length|sum of prompt length"  # Moonshot, Z.ai,
    # DashScope, TensorRT-LLM
    r"|input or output tokens must be reduced|max size: \d+ tokens",  # Azure, GitHub
    re.IGNORECASE,
)

_COUNTED = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # vLLM
        r"too large: (?P<output>\d+).+length is (?P<limit>\d+) tokens and your request has (?P<input>\d+) input",
        r"passed (?P<input>\d+) input tokens and requested (?P<output>\d+) output.+ only (?P<limit>\d+) tokens",
        # OpenAI and older vLLM; OpenRouter
        r"length is (?P<limit>\d+) tokens.+\((?P<input>\d+) (in the messages|of text input).*?"
        r" (?P<output>\d+) in the (completion|output)",
        # OpenAI's embeddings: one text; all of them
        r"length is (?P<limit>\d+) tokens.+requested (?P<input>\d+) tokens \(\d+ in your prompt; 0 for",
        r"requested (?P<input>\d+) tokens, max (?P<limit>\d+) tokens per request",
        # SGLang
        r"length of (?P<limit>\d+) tokens.+ (?P<input>\d+) tokens from the input.+ (?P<output>\d+) tokens for the",
        # TGI, Together
        r"<= (?P<limit>\d+)\. given: (?P<input>\d+) \W*inputs\W* tokens and (?P<output>\d+)",
        # watsonx
        r"input tokens (?P<input>\d+) cannot exceed the total tokens limit (?P<limit>\d+)",
        # OpenAI, vLLM
        r"length is (?P<limit>\d+) tokens\. however, your (messages resulted in|request has) (?P<input>\d+)",
        r"limit of (?P<limit>\d+) tokens\. your messages resulted in (?P<input>\d+)",
        # Vertex AI; Gemini; llama.cpp, SGLang
        r"input token count is (?P<input>\d+) but (the )?model (only )?supports up to (?P<limit>\d+)",
        r"input token count \((?P<input>\d+)\) exceeds.+\((?P<limit>\d+)\)",
        r"\((?P<input>\d+) tokens\) (exceeds|is longer than).+\((?P<limit>\d+) tokens\)",
        # Mistral; xAI
        r"contains (?P<input>\d+) tokens.+too large for model with (?P<limit>\d+)",
        r"prompt length is (?P<limit>\d+) but the request contains (?P<input>\d+)",
    )
]


class Counted(NamedTuple):
    """What a vendor counted: tokens of the prompt, of the answer that it asks for (0: not told), and all there is."""

    input: int
    output: int
    limit: int


def is_too_long(said: str) -> bool:
    """Whether a vendor's error is about the length of the prompt."""
    return _TOLD.search(said, 0, _MAX_CHARS) is not None


def read_counted(said: str) -> Counted | None:
    """The numbers in such an error; None where it has none that are known of."""
    for pattern in _COUNTED:
        if found := pattern.search(said, 0, _MAX_CHARS):
            told = found.groupdict()
            return Counted(int(told["input"]), int(told.get("output") or 0), int(told["limit"]))
    return None
