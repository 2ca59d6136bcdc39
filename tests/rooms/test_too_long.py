"""Prompts that are too long, in vendors' words: known as such, and told as Anthropic's clients read it."""

import pytest

from torana.dialects.messages_writing import tell_too_long
from torana.errors import PromptTooLong, ProviderRefusedKey, provider_refused

NO_ROOM = "input length and `max_tokens` exceed context limit: "
TOO_LONG = "prompt is too long: "


@pytest.mark.parametrize(
    ("said", "told"),
    [
        # Anthropic, and the same through Bedrock
        ("prompt is too long: 208310 tokens > 200000 maximum", TOO_LONG + "208310 tokens > 200000 maximum"),
        (NO_ROOM + "188059 + 20000 > 200000, decrease", NO_ROOM + "188059 + 20000 > 200000, decrease"),
        (
            "The model returned the following errors: prompt is too long: 9 tokens > 8 maximum",
            TOO_LONG + "9 tokens > 8",
        ),
        ("Input is too long for requested model.", TOO_LONG),
        ("Input Tokens Exceeded: Number of input tokens exceeds maximum length.", TOO_LONG),
        # OpenAI
        (
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 130102 tokens.",
            TOO_LONG + "130102 tokens > 128000 maximum",
        ),
        (
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
            TOO_LONG + "300000 tokens > 272000 maximum",
        ),
        ("Your input exceeds the context window of this model.", TOO_LONG),
        # vLLM
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 32768 "
            "tokens and your request has 5000 input tokens (32000 > 32768 - 5000).",
            NO_ROOM + "5000 + 32000 > 32768, ",
        ),
        (
            "This model's maximum context length is 32768 tokens. However, you requested 37000 tokens (5000 in the "
            "messages, 32000 in the completion). Please reduce the length of the messages or completion.",
            NO_ROOM + "5000 + 32000 > 32768, ",
        ),
        (
            "This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens.",
            TOO_LONG + "40000 tokens > 32768 maximum",
        ),
        ("The decoder prompt (length 40000) is longer than the maximum model length of 32768.", TOO_LONG),
        (
            "You passed 5000 input tokens and requested 32000 output tokens. However, the model's context length is "
            "only 32768 tokens, resulting in a maximum input length of 768 tokens.",
            NO_ROOM + "5000 + 32000 > 32768, ",
        ),
        ("You passed 32769 input tokens. However, the model's context length is only 32768 tokens.", TOO_LONG),
        # SGLang
        (
            "Requested token count exceeds the model's maximum context length of 32768 tokens. You "
            "requested a total of "
            "37000 tokens: 5000 tokens from the input messages and 32000 tokens for the completion.",
            NO_ROOM + "5000 + 32000 > 32768, ",
        ),
        (
            "The input (40000 tokens) is longer than the model's context length (32768 tokens).",
            TOO_LONG + "40000 tokens > 32768 maximum",
        ),
        # llama.cpp, Ollama, LM Studio
        (
            "request (40000 tokens) exceeds the available context size (32768 tokens), try increasing it",
            TOO_LONG + "40000 tokens > 32768 maximum",
        ),
        ("prompt too long; exceeded max context length by 5000 tokens", TOO_LONG),
        ("The number of tokens to keep from the initial prompt is greater than the context length.", TOO_LONG),
        # Others
        (
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            TOO_LONG + "1200000 tokens > 1048576 maximum",
        ),
        (
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
            TOO_LONG + "40000 tokens > 32768 maximum",
        ),
        (
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
            TOO_LONG + "537812 tokens > 131072 maximum",
        ),
        (
            "This endpoint's maximum context length is 32768 tokens. However, you requested about "
            "42832 tokens (10832 of "
            "text input, 32000 in the output).",
            NO_ROOM + "10832 + 32000 > 32768, ",
        ),
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 3000 "
            "`inputs` tokens and "
            "2000 `max_new_tokens`",
            NO_ROOM + "3000 + 2000 > 4097, ",
        ),
        ("Please reduce the length of the messages or completion.", TOO_LONG),
        (
            "Request too large for model `llama-3.1-8b-instant` in organization `o` service tier `on_demand` on tokens "
            "per minute (TPM): Limit 6000, Requested 12328, please reduce your message size and try again.",
            TOO_LONG,
        ),
        (
            "Invalid input argument for Model 'meta-llama/llama-2-70b-chat': the number of input tokens 4098 cannot "
            "exceed the total tokens limit 4096 for this model",
            TOO_LONG + "4098 tokens > 4096 maximum",
        ),
        ("Invalid request: Your request exceeded model token limit: 131072", TOO_LONG),
        ("The input or output tokens must be reduced in order to run successfully", TOO_LONG),
    ],
)
def test_a_vendors_words_are_known_and_told_as_anthropic_says_it(said: str, told: str) -> None:
    assert isinstance(provider_refused(400, said), PromptTooLong)
    assert tell_too_long(said).startswith(told)


@pytest.mark.parametrize(
    "said",
    [
        "tools.0.name: String should have at most 128 characters",
        "Invalid 'messages[0].content': string too long. Expected a string with maximum length 10485760.",
        "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for claude-sonnet-4-6",
        "max_tokens is too large: 50000. This model supports at most 16384 completion tokens.",
        "The maximum tokens you requested exceeds the model limit of 8192.",
        "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes",
    ],
)
def test_what_else_may_be_too_long_or_too_large_is_no_prompt(said: str) -> None:
    assert not isinstance(provider_refused(400, said), PromptTooLong)


def test_together_says_403_and_means_no_key_of_ours() -> None:
    words = (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 80125 `inputs` tokens and"
    )
    refused = provider_refused(403, words)
    assert isinstance(refused, PromptTooLong)
    assert refused.upstream_code == 400
    assert isinstance(provider_refused(403, "Key limit"), ProviderRefusedKey)
