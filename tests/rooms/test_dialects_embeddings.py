"""Formats of embeddings: golden files, and what they refuse."""

import json
import math

import msgspec
import pytest
from tests.golden.compare import assert_golden, read

from torana.chat import Usage
from torana.dialects.bedrock_embeddings import COUNT_HEADER, embeddings_of
from torana.dialects.embedding_dialect import EmbeddingDialect, EmbeddingsRequest, Purpose, numbers_of, of_length_one
from torana.dialects.embeddings import OPENAI_EMBEDDINGS
from torana.dialects.gemini_embeddings import GEMINI_EMBEDDINGS
from torana.dialects.vertex_predictions import VERTEX_EMBEDDINGS, scan_answer
from torana.errors import Invalid, ProviderBroke

TITAN_MODEL, COHERE_MODEL = "amazon.titan-embed-text-v2:0", "eu.cohere.embed-v4:0"
TITAN, COHERE = embeddings_of(TITAN_MODEL), embeddings_of(COHERE_MODEL)
assert TITAN is not None
assert COHERE is not None
KINDS: dict[str, tuple[EmbeddingDialect, str]] = {
    "openai": (OPENAI_EMBEDDINGS, "text-embedding-3-small"),
    "gemini": (GEMINI_EMBEDDINGS, "gemini-embedding-001"),
    "vertex": (VERTEX_EMBEDDINGS, "text-embedding-005"),
    "titan": (TITAN, TITAN_MODEL),
    "cohere": (COHERE, COHERE_MODEL),
}
TEXTS = ("größe 🙂", "b")
kinds = pytest.mark.parametrize("kind", KINDS)


def texts_for(kind: str) -> tuple[str, ...]:
    dialect, model = KINDS[kind]
    return TEXTS[: dialect.most_inputs(model)]


@kinds
@pytest.mark.parametrize(("purpose", "dimensions"), [("", None), ("index", None), ("search", 256)])
def test_a_request_is_written_as_in_the_golden_file(kind: str, purpose: Purpose, dimensions: int | None) -> None:
    dialect, model = KINDS[kind]
    request = EmbeddingsRequest(inputs=texts_for(kind), dimensions=dimensions, user="u1", purpose=purpose)

    body = dialect.write_request(request, model)

    assert_golden(f"embeddings/{kind}.{purpose or 'plain'}.request.json", json.loads(body))


@pytest.mark.parametrize("name", [*KINDS, "cohere_old"])
def test_an_answers_vectors_are_read_in_the_order_of_the_texts(name: str) -> None:
    dialect, _ = KINDS[name.removesuffix("_old")]
    texts = texts_for(name.removesuffix("_old"))
    body = read(f"embeddings/{name}.answer.json")

    vectors = [numbers_of(vector) for vector in dialect.read_answer(body, len(texts))]

    assert vectors == [[0.25, -0.5], [1.0, 0.002]][: len(texts)]
    headers = {COUNT_HEADER: "9"} if name.startswith("cohere") else {}
    assert dialect.read_usage(body, headers) == Usage(9)


def told(taken: object, given: object) -> dict[str, object]:
    """As text models of old tell it beside their predictions."""
    return {"tokenMetadata": {"inputTokenCount": taken, "outputTokenCount": given}}


@pytest.mark.parametrize(
    ("metadata", "usage"),
    [
        (told({"totalTokens": 25, "totalBillableCharacters": 99}, {"totalTokens": 7}), Usage(25, 7)),
        (told({"totalTokens": 25}, None), Usage(25)),
        (told({"totalTokens": -1}, {"totalTokens": 7}), None),
        (told({}, {"totalTokens": 7}), None),
        ({"billableCharacterCount": 99}, None),
        (None, None),
    ],
)
def test_what_a_prediction_of_text_used_is_read_beside_it(metadata: object, usage: Usage | None) -> None:
    body = json.dumps({"predictions": [{"content": "Hello"}], "metadata": metadata}).encode()

    assert scan_answer(body) == usage


@kinds
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"<html>", b'{"embeddings":{}}', b'{"predictions":[{}]}'])
def test_what_holds_no_vectors_is_no_answer(kind: str, body: bytes) -> None:
    dialect, _ = KINDS[kind]

    with pytest.raises(ProviderBroke):
        dialect.read_answer(body, 1)
    assert dialect.read_usage(body, {COUNT_HEADER: "9" * 5000}) is None


AROUND = {
    "openai": b'{"data":[{"embedding":%b}]}',
    "gemini": b'{"embeddings":[{"values":%b}]}',
    "vertex": b'{"predictions":[{"embeddings":{"values":%b}}]}',
    "titan": b'{"embedding":%b}',
    "cohere": b'{"embeddings":{"float":[%b]}}',
}


@kinds
@pytest.mark.parametrize("vector", [b"[0.1,-2.5e-05, 3E+20]", b"[]", b"[ 1e-999,\n0.1]", b"[1e308]", b"[-1e+30,0]"])
def test_a_vector_says_the_same_in_the_answer(kind: str, vector: bytes) -> None:
    (found,) = KINDS[kind][0].read_answer(AROUND[kind] % vector, 1)

    assert json.loads(msgspec.json.encode(found)) == json.loads(vector) == numbers_of(found)


@kinds
@pytest.mark.parametrize("vector", [
    b"null", b"{}", b'"AAAA"', b"[null]", b'["1"]', b"[[1]]", b"[1,[2]]", b"[true]", b"[1e999]", b"[1,-2E+400]", b"1",
])  # fmt: skip
def test_what_is_no_list_of_numbers_is_no_vector(kind: str, vector: bytes) -> None:
    with pytest.raises(ProviderBroke):
        KINDS[kind][0].read_answer(AROUND[kind] % vector, 1)


@pytest.mark.parametrize("kind", ["openai", "gemini", "vertex", "cohere"])
@pytest.mark.parametrize("wanted", [1, 3])
def test_more_vectors_or_fewer_than_texts_are_no_answer(kind: str, wanted: int) -> None:
    with pytest.raises(ProviderBroke):
        KINDS[kind][0].read_answer(read(f"embeddings/{kind}.answer.json"), wanted)


@pytest.mark.parametrize("kind", ["gemini", "vertex", "titan", "cohere"])
def test_tokens_of_anothers_vocabulary_are_refused(kind: str) -> None:
    dialect, model = KINDS[kind]

    with pytest.raises(Invalid):
        dialect.write_request(EmbeddingsRequest(inputs=((1, 2),)), model)


@pytest.mark.parametrize("model", ["amazon.titan-embed-text-v1", "cohere.embed-english-v3"])
def test_a_length_that_a_model_does_not_have_is_refused(model: str) -> None:
    dialect = embeddings_of(model)
    assert dialect is not None

    with pytest.raises(Invalid):
        dialect.write_request(EmbeddingsRequest(inputs=("a",), dimensions=256), model)


def test_what_makes_no_vectors_is_not_asked_for_any() -> None:
    assert embeddings_of("anthropic.claude-sonnet-4-5") is None


def test_vectors_of_any_length_become_vectors_of_length_one() -> None:
    cut = [[0.03 * at for at in range(-300, 300)], [3.0, 4.0], [1e-200, 0.0], [1e300, -1e300]]

    made = of_length_one(cut)

    assert [math.hypot(*vector) for vector in made] == pytest.approx([1] * 4)
    assert made[1] == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("vector", [[], [0.0, 0.0], [0.6, 0.8], [0.6000001, 0.8], [1e308] * 4])
def test_what_has_no_length_or_is_right_stays_as_it_is(vector: list[float]) -> None:
    assert of_length_one([vector]) == [vector]
