"""The prompts of contract 8.3: what each needs, what it becomes, and the answer that it asks for."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.golden.compare import assert_golden, read

from torana.catalog.load import load_catalogue
from torana.chat import ChatRequest
from torana.cli.check import check
from torana.prompts.prompt import Prompt
from torana.prompts.registry import Prompts
from torana.providers.demo.demo import DemoProvider
from torana.settings import CatalogueSettings

DOCUMENT = Path(__file__).parents[2] / "docs/reference/prompts.md"


class Row(NamedTuple):
    """One row of the contract's table, with what we make of it."""

    id: str
    unit_primitive: str
    timeout_s: float | None
    required: str
    optional: str = ""
    versions: str = "1.0.0"

    @property
    def inputs(self) -> list[str]:
        return [*self.required.split(), *self.optional.split()]


READERS = {
    "chat/issue_reader": "ask_issue",
    "chat/epic_reader": "ask_epic",
    "chat/merge_request_reader": "ask_merge_request",
    "chat/build_reader": "ask_build",
    "chat/commit_reader": "ask_commit",
    "chat/work_item_reader": "ask_work_item",
}
CODE = ("input selected_text", "file_content language_info")
ENHANCER = (
    "prefix instruction language file_name examples_array trimmed_content_above_cursor trimmed_content_below_cursor "
    "related_files related_snippets libraries user_instruction"
)
ROWS = [
    Row("categorize_question", "duo_chat", 15, "question", "previous_answer"),
    Row("chat/explain_code", "explain_code", 60, *CODE),
    Row("chat/fix_code", "fix_code", 60, CODE[0], f"{CODE[1]} libraries file_content_reuse"),
    Row("chat/refactor_code", "refactor_code", 60, CODE[0], f"{CODE[1]} libraries file_content_reuse"),
    Row("chat/write_tests", "write_tests", 60, CODE[0], f"{CODE[1]} libraries"),
    Row(
        "chat/explain_vulnerability",
        "explain_vulnerability",
        60,
        "title",
        "identifiers vulnerability_info vulnerability_description language_info",
    ),
    Row("chat/troubleshoot_job", "troubleshoot_job", 60, "selected_text", "language_info"),
    Row("chat/summarize_comments", "summarize_comments", 60, "notes_content"),
    *[Row(prompt_id, unit_primitive, 60, "input", "suggestions") for prompt_id, unit_primitive in READERS.items()],
    Row("chat/documentation_search", "documentation_search", 60, "question documents", "content_id"),
    Row("code_suggestions/generations", "generate_code", 60, "", ENHANCER, "1.0.0 1.2.0 2.0.0 2.1.0 3.0.0"),
    Row("code_suggestions/completions", "complete_code", 60, "prefix", "suffix file_name language"),
    Row("generate_commit_message", "generate_commit_message", None, "diff"),
    Row("generate_description", "generate_issue_description", None, "content", "template"),
    Row("glab_ask_git_command", "glab_ask_git_command", None, "prompt"),
    Row("measure_comment_temperature", "measure_comment_temperature", None, "content"),
    Row(
        "resolve_vulnerability",
        "resolve_vulnerability",
        None,
        "name vulnerable_code",
        "filename identifiers source_code vulnerability_description",
    ),
    Row(
        "review_merge_request",
        "review_merge_request",
        None,
        "diff_lines",
        "full_content_section mr_title mr_description custom_instructions_section",
        "0.9.0 1.0.0 1.1.0 1.2.0 1.3.0",
    ),
    Row("summarize_new_merge_request", "summarize_new_merge_request", None, "extracted_diff", versions="1.0.0 2.0.0"),
    Row("summarize_review", "summarize_review", None, "draft_notes_content", versions="1.0.0 2.0.0 3.0.0"),
    Row("model_configuration/check", "complete_code", 60, ""),
    Row("feature_discovery_search", "feature_discovery_search", 3, "query catalog", "features"),
    Row("classify_code_review_mention_intent", "duo_agent_platform", 30, "message"),
    Row("generate_session_title", "duo_agent_platform", 30, "context", "definition"),
    Row("summarize_duo_workflow", "duo_agent_platform", 30, "logs"),
]
BY_ID = {row.id: row for row in ROWS}
ELSEWHERE = {"chat/react", "generate_release_notes", "measure_abuse", "summarize_text"}
"""Prompts of the chat endpoint, of features of our own and of the gateway itself; no client of the contract asks."""
ANY_OF = {"chat/commit_reader": ("ask_commit", "duo_chat")}
"""Prompts that 17.x asks for with another unit primitive."""
UNREAD = {"content_id"}
"""The line of cited ids is `ATTRS: CNT-IDX-…` whatever Rails calls it."""

CATALOGUE = load_catalogue([])
ROOM = Prompts(CATALOGUE, CatalogueSettings())
FILES = [
    (row, variant, version)
    for row in ROWS
    for variant, versions in sorted(CATALOGUE.prompts.get(row.id, {}).items())
    for version in sorted(versions)
]


def over(files: list[tuple[Row, str, str]]) -> pytest.MarkDecorator:
    ids = [f"{row.id}-{variant}-{version}" for row, variant, version in files]
    return pytest.mark.parametrize(("row", "variant", "version"), files, ids=ids)


# Code suggestions keep older clients' forms apart by version: the tests of the code room say which knows which input.
NOT_CODE = [file for file in FILES if not file[0].id.startswith("code_suggestions/")]
JSON = [file for file in FILES if ROOM.find(file[0].id, file[2], [file[1]]).answer == "json"]


def find(row: Row, variant: str, version: str) -> Prompt:
    prompt = ROOM.find(row.id, version, [variant])
    assert (prompt.variant, prompt.version) == (variant, version)
    return prompt


def example_of(prompt_id: str) -> dict[str, Any]:
    inputs: dict[str, Any] = json.loads(read(f"prompts/{prompt_id}/inputs.json"))
    return inputs


def render(prompt_id: str, inputs: dict[str, Any], constraint: str | None = None, family: str = "base") -> ChatRequest:
    return ROOM.render(ROOM.find(prompt_id, constraint, [family]), inputs)


def text_of(chat: ChatRequest, role: str = "") -> str:
    return "\n".join(message.text for message in chat.messages if role in ("", message.role))


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    """Every line that is a JSON object, behind `Answer: ` or not."""
    for line in text.splitlines():
        found = line.removeprefix("Answer: ").strip()
        if found.startswith("{"):
            yield json.loads(found)


def readable(chat: ChatRequest) -> dict[str, Any]:
    return {
        "messages": [{"role": message.role, "text": message.text.split("\n")} for message in chat.messages],
        "answer": chat.answer,
        "max_tokens": chat.max_tokens,
        "temperature": chat.temperature,
        "stop": list(chat.stop),
        "timeout_s": chat.timeout_s,
    }


def test_the_catalogue_holds_the_prompts_of_the_contract_in_all_their_versions() -> None:
    shipped = {prompt_id: sorted(variants["base"]) for prompt_id, variants in CATALOGUE.prompts.items()}

    assert {prompt_id: shipped[prompt_id] for prompt_id in shipped.keys() - ELSEWHERE} == {
        row.id: row.versions.split() for row in ROWS
    }


def test_the_shipped_catalogue_passes_torana_check() -> None:
    result = CliRunner().invoke(check, ["--json"], env={"AIGW_CATALOG": ""})

    assert (result.exit_code, json.loads(result.output)["problems"]) == (0, [])


@over(FILES)
def test_a_prompt_declares_the_primitive_and_the_patience_of_the_contract(row: Row, variant: str, version: str) -> None:
    prompt = find(row, variant, version)

    is_moved = row.id == "summarize_review" and version >= "3"
    wanted = "duo_agent_platform" if is_moved else row.unit_primitive
    assert prompt.any_of == ANY_OF.get(row.id, ())
    assert prompt.unit_primitives == (() if prompt.any_of else (wanted,))
    assert prompt.timeout_s == row.timeout_s
    assert prompt.is_simple


@pytest.mark.parametrize(
    ("prompt_id", "constraint", "version"),
    [
        *[(row.id, constraint, None) for row in ROWS for constraint in (None, "^1.0.0", "1.0.0")],
        ("summarize_new_merge_request", "^2.0.0", "2.0.0"),
        ("summarize_review", "^2.0.0", "2.0.0"),
        ("summarize_review", "^3.0.0", "3.0.0"),
        *[("review_merge_request", pin, pin) for pin in ("0.9.0", "1.0.0", "1.1.0", "1.2.0", "1.3.0")],
        ("review_merge_request", "^1.0.0", "1.3.0"),
        ("review_merge_request", "^0.9.0", "0.9.0"),
        *[
            ("code_suggestions/generations", constraint, None)
            for constraint in ("1.0.1-dev", "1.2.0", "2.0.0", "^2.0.1", "3.0.2-dev")
        ],
    ],
)
def test_every_constraint_that_rails_sends_finds_a_version(
    prompt_id: str, constraint: str | None, version: str | None
) -> None:
    found = ROOM.find(prompt_id, constraint).version

    assert found == (version or found)


@pytest.mark.parametrize(
    ("family", "variant"),
    [("mistral", "mistral"), ("mixtral", "mistral"), ("codestral", "mistral"), ("llama3", "base")],
)
def test_families_of_mistral_are_asked_in_one_user_turn(family: str, variant: str) -> None:
    variants = CATALOGUE.families[family].variants or (family,)

    prompt = ROOM.find("chat/issue_reader", None, variants)
    roles = [message.role for message in ROOM.render(prompt, {"input": "#1?"}).messages]

    assert prompt.variant == variant
    assert roles == (["user"] if variant == "mistral" else ["system", "user"])


@over(FILES)
def test_the_recorded_example_renders_as_in_the_golden_file(row: Row, variant: str, version: str) -> None:
    inputs = example_of(row.id)
    assert set(inputs) == set(row.inputs)  # the example shows every input, and nothing else

    chat = ROOM.render(find(row, variant, version), inputs)

    assert_golden(f"prompts/{row.id}/{variant}-{version}.json", readable(chat))


def test_no_golden_file_is_left_behind_by_a_prompt_that_is_gone() -> None:
    folder = Path(__file__).parents[1] / "golden/prompts"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.json")} - {
        f"{row.id}/inputs.json" for row in ROWS
    }

    assert there == {f"{row.id}/{variant}-{version}.json" for row, variant, version in FILES}


@over(FILES)
def test_a_prompt_needs_its_main_inputs_and_no_others(row: Row, variant: str, version: str) -> None:
    prompt = find(row, variant, version)

    needed = {name: value for name, value in example_of(row.id).items() if name in row.required.split()}
    chat = ROOM.render(prompt, needed)

    assert prompt.variables == set(row.required.split())
    assert chat.messages[-1].role == "user"


@over(FILES)
@pytest.mark.parametrize("nothing", [None, [], {}], ids=repr)
def test_inputs_without_a_value_leave_no_trace(row: Row, variant: str, version: str, nothing: Any) -> None:
    prompt = find(row, variant, version)

    chat = ROOM.render(prompt, dict.fromkeys(row.inputs, nothing))

    assert chat == ROOM.render(prompt, dict.fromkeys(row.inputs, ""))
    assert chat.messages[-1].role == "user"
    assert "None" not in text_of(chat)


@over(NOT_CODE)
def test_every_input_of_the_contract_reaches_the_model(row: Row, variant: str, version: str) -> None:
    prompt = find(row, variant, version)
    inputs = dict.fromkeys(row.inputs, "")
    plain = ROOM.render(prompt, inputs)

    read = {name for name in row.inputs if ROOM.render(prompt, {**inputs, name: "told"}) != plain}

    assert read == set(row.inputs) - UNREAD


@pytest.mark.parametrize(
    ("prompt_id", "name"),
    [
        (row.id, name)
        for row in dict.fromkeys(file[0] for file in NOT_CODE)
        for name in row.inputs
        if name not in {"file_content_reuse", *UNREAD}  # the first only switches a sentence on
    ],
)
def test_values_stand_in_a_tag_and_may_come_as_text_list_or_object(prompt_id: str, name: str) -> None:
    inputs = dict.fromkeys(BY_ID[prompt_id].inputs, "")

    for value in ("one told", ["told"], [{"told": 1}], {"told": ["é"]}):
        user = text_of(render(prompt_id, {**inputs, name: value}), "user")

        found = re.search(r"<(\w+)>\n[^<]*told[^<]*\n</\1>", user)
        assert found, value
        assert "\\u" not in user  # letters stay letters


pieces = st.lists(
    st.sampled_from(["</diff>", "</", "diff", "<diff>", "</diff ", "\n", "é", "{{ x }}", "a"]), max_size=8
)


@given(pieces)
@hypothesis_settings(max_examples=60)
def test_a_text_cannot_end_its_own_tag(parts: list[str]) -> None:
    value = "".join(parts)

    user = text_of(render("generate_commit_message", {"diff": value}), "user")

    assert user.count("</diff") == bool(value)
    assert user.replace("<\\/diff", "</diff").endswith(f"<diff>\n{value}\n</diff>" if value else "diff.")


@pytest.mark.parametrize("prompt_id", READERS)
@pytest.mark.parametrize("family", ["base", "mistral"])
def test_a_readers_examples_are_objects_that_rails_can_parse(prompt_id: str, family: str) -> None:
    chat = render(prompt_id, {"input": "?"}, family=family)

    form, *examples = objects_in(text_of(chat))

    assert len(examples) >= 3
    assert all(set(each) == {"ResourceIdentifierType", "ResourceIdentifier"} for each in (form, *examples))
    kinds = {example["ResourceIdentifierType"] for example in examples}
    assert {"url", "current"} <= kinds <= {"iid", "url", "reference", "current"}
    assert all(example["ResourceIdentifier"] for example in examples)
    assert '"id"' not in text_of(chat)  # Rails looks nothing up by it


def test_a_job_that_is_named_by_its_number_is_looked_up_as_a_url() -> None:
    _, example, *_ = objects_in(text_of(render("chat/build_reader", {"input": "?"})))

    assert example == {"ResourceIdentifierType": "url", "ResourceIdentifier": "1234"}


def test_a_categorys_example_keeps_to_the_list_of_categories() -> None:
    text = text_of(render("categorize_question", {"question": "?"}))
    categories = {name: details.split("; ") for name, details in re.findall(r"^- (\w+): (.+;.+)$", text, re.MULTILINE)}
    labels = re.findall(r"^- ([a-z]+_[a-z_]+): ", text, re.MULTILINE)

    _, example = objects_in(text)

    assert set(example) == {"detailed_category", "category", "labels"}
    assert example["detailed_category"] in categories[example["category"]]
    assert set(example["labels"]) <= set(labels)
    assert len(categories) == 9
    assert len(labels) == 6


@over(JSON)
async def test_the_demos_answer_to_a_json_prompt_has_the_form_that_it_shows(
    row: Row, variant: str, version: str
) -> None:
    chat = ROOM.render(find(row, variant, version), example_of(row.id))

    text = "".join([chunk.text async for batch in DemoProvider().answer(chat) for chunk in batch])

    answer = json.loads(text)
    assert set(answer) == set(next(objects_in(text_of(chat))))
    assert "<" not in text  # `<intent>` stands for what is to be put there


def test_documentation_is_cited_by_the_ids_that_rails_looks_for() -> None:
    documents = [
        {"id": "doc1", "content": "one"},
        {"id": "CNT-IDX-2", "content": "two"},
        {"id": 3, "content": "three"},
    ]

    chat = render("chat/documentation_search", {"question": "?", "documents": documents, "content_id": "OTHER"})

    assert "\nATTRS: CNT-IDX-<id> CNT-IDX-<id>\n" in text_of(chat, "system")
    ids = re.findall(r"<id>\n(.*)\n</id>\n<document>\n(.*)\n", text_of(chat, "user"))
    assert ids == [("CNT-IDX-doc1", "one"), ("CNT-IDX-2", "two"), ("CNT-IDX-3", "three")]


@pytest.mark.parametrize(
    ("documents", "told"),
    [
        ("CNT-IDX-1: one", "<documents>\nCNT-IDX-1: one\n</documents>"),
        (["CNT-IDX-1: one"], "<documents>\n<document>\nCNT-IDX-1: one\n</document>\n</documents>"),
        ({"a": "one"}, '<documents>\n{"a": "one"}\n</documents>'),
        ([{"text": "one"}], '<documents>\n<document>\n{"text": "one"}\n</document>\n</documents>'),
        ([{"id": 7, "content": "one", "metadata": None}], "<id>\nCNT-IDX-7\n</id>\n<document>\none\n</document>"),
        ([{"content": "one", "metadata": {"title": "T"}}], "<title>\nT\n</title>\n<document>\none\n</document>"),
        ([], "Answer the question.\n<question>"),
    ],
)
def test_documents_may_come_in_several_shapes(documents: Any, told: str) -> None:
    user = text_of(render("chat/documentation_search", {"question": "?", "documents": documents}), "user")

    assert told in user
    assert user.endswith("<question>\n?\n</question>")


@pytest.mark.parametrize("version", BY_ID["review_merge_request"].versions.split())
def test_a_review_is_asked_for_as_comments_with_line_numbers(version: str) -> None:
    system = text_of(render("review_merge_request", {"diff_lines": "x"}, version), "system")

    forms = [ElementTree.fromstring(form) for form in re.findall(r"<review>.*?</review>", system, re.DOTALL)]

    comment = forms[0][0]
    assert (comment.tag, comment.attrib) == (
        "comment",
        {"priority": "3", "old_line": "", "new_line": "12", "file": "app/models/user.rb"},
    )
    assert [len(form) for form in forms] == [1, 0]  # and the form of a review without comments


def test_a_fix_is_asked_for_between_the_markers_that_rails_cuts_it_out_by() -> None:
    system = text_of(render("resolve_vulnerability", {"name": "x", "vulnerable_code": "y"}), "system")

    def cut_out(tag: str, text: str = system) -> list[str]:
        return re.findall(rf"(?<=<{tag}>\n).*?(?=</{tag}>)", text, re.DOTALL)

    (patch,) = cut_out("fixed_code")
    assert len(cut_out("old_code", patch)) == len(cut_out("new_code", patch)) == 1
    assert cut_out("is_false_positive") == ["false\n"]
    assert len(cut_out("analysis")) == len(cut_out("summary")) == 1


def test_a_comments_tone_is_asked_for_between_the_tags_that_the_form_looks_for() -> None:
    system = text_of(render("measure_comment_temperature", {"content": "x"}), "system")

    forms = re.findall(r"<temperature_rating>\s*(\{.*?\})\s*</temperature_rating>", system, re.DOTALL)

    rated = [json.loads(form) for form in forms]
    assert [set(each) for each in rated] == [{"rating", "issues"}] * 2
    assert all(isinstance(each["rating"], int) for each in rated)
    assert all(isinstance(issue, str) for each in rated for issue in each["issues"])


def test_an_intent_is_asked_for_as_one_of_the_words_that_rails_compares_it_with() -> None:
    system = text_of(render("classify_code_review_mention_intent", {"message": "x"}), "system")

    assert re.findall(r"^- (\w+): ", system, re.MULTILINE) == ["code_review_request", "write_actions", "agentic_chat"]
    assert "\ncode_review_request\n" in system


def test_features_are_asked_for_by_their_ids_whatever_the_catalogue_is_called() -> None:
    texts = [
        text_of(render("feature_discovery_search", {"query": "x", name: [{"id": "boards"}]}))
        for name in ("catalog", "features")
    ]

    assert texts[0] == texts[1]
    assert next(objects_in(texts[0])) == {"feature_ids": ["<id of the catalogue>"]}
    assert '<catalog>\n[{"id": "boards"}]\n</catalog>' in texts[0]


def test_commands_are_asked_for_in_one_bare_fence() -> None:
    system = text_of(render("glab_ask_git_command", {"prompt": "x"}), "system")

    assert re.findall(r"^```.*$", system, re.MULTILINE) == ["```", "```"]


def test_the_reference_page_says_what_the_catalogue_holds() -> None:
    told = dict[str, list[str]]()
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            told[cells[0].strip("`")] = cells[1:]

    assert {prompt_id: cells[:-1] for prompt_id, cells in told.items()} == {row.id: _cells_of(row) for row in ROWS}
    answers = {prompt_id: cells[-1].split()[0].strip(":,;") for prompt_id, cells in told.items()}
    words = {"text": ("Markdown", "text"), "json": ("JSON",), "code": ("code",)}
    assert all(answers[row.id] in words[ROOM.find(row.id).answer] for row in ROWS)


def _cells_of(row: Row) -> list[str]:
    """Versions, inputs, unit primitive, patience: as the page writes them."""
    versions = "; ".join(
        f"{', '.join(sorted(numbers))}" + ("" if variant == "base" else f" ({variant})")
        for variant, numbers in sorted(CATALOGUE.prompts[row.id].items())
    )
    inputs = [f"**`{name}`**" for name in row.required.split()] + [f"`{name}`" for name in row.optional.split()]
    found = [find(row, "base", version) for version in row.versions.split()]
    primitives = [prompt.unit_primitives[0] if prompt.unit_primitives else prompt.any_of[0] for prompt in found]
    unit_primitive = " or ".join(f"`{name}`" for name in found[0].any_of) or f"`{primitives[0]}`"
    if primitives[-1] != primitives[0]:
        unit_primitive += f", from {row.versions.split()[primitives.index(primitives[-1])]} on `{primitives[-1]}`"
    timeout = f"{row.timeout_s:g} s" if row.timeout_s else "–"
    return [versions, ", ".join(inputs) or "none", unit_primitive, timeout]
