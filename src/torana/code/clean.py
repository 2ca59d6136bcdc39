"""What becomes of a model's answer before it is offered as a suggestion (contract 6.7).

Completions walk the steps below in order and stop as soon as nothing is left. Operators may leave steps
out by name (`AIGW_FEATURE_FLAGS__EXCL_POST_PROCESS`); the quality rule at the end always holds.
"""

import re
from collections.abc import Callable, Collection

from torana.code.closers import drop_closed_again, drop_closed_below
from torana.code.comments import is_comment_line, is_only_comments
from torana.code.fences import DOCSTRINGS, strip_fences, unwrap
from torana.code.orders import Cleaning, Cursor
from torana.code.repeats import drop_loops, drop_repeated_blocks, drop_repeated_end, drop_repeated_start
from torana.code.syntax import begins_comment, end_of_block

# Marks that models were shown for the cursor, or use between themselves.
_MARKERS = re.compile(
    r"<\|?/?(?:user_)?cursor(?:_is_here|_position|_marker)?(?: ?/)?\|?>"
    r"|<[|｜](?:fim[_▁](?:prefix|suffix|middle|begin|hole|end|pad)|endoftext|end▁of▁sentence|file_sep(?:arator)?)[|｜]>",
    re.IGNORECASE,
)
_ASTERISKS = re.compile(r"\A\s*\*+[ \t]*")
_PARTIAL_WORD = re.compile(r"(?<!\w)\w+\Z")
_MAX_CHARS = 20_000
"""A longer completion is offered as it came. Models are asked for 128 tokens; a server that sends so much more could
keep us looking for repetitions."""
_MAX_GENERATION_CHARS = 400_000
"""The same of a generation: 100,000 tokens, of the 4,096 that are asked for unless a prompt file says more."""
_MAX_ROUNDS = 3


def clean(
    text: str, cursor: Cursor, cleaning: Cleaning, *, excluded: Collection[str] = (), is_cut: bool = False
) -> str:
    """One collected answer, as `cleaning` says.

    excluded   names of steps to leave out
    is_cut     the answer ended because its output cap was reached
    """
    match cleaning:
        case "none":
            return text
        case "blank_only":
            return _blank_to_empty(text, cursor)
        case "generation":
            return clean_generation(text, cursor, excluded=excluded)
    if cleaning == "codestral_completion" and "strip_asterisks" not in excluded:
        text = _ASTERISKS.sub("", text)
    if cleaning == "fast_completion" and is_cut and "back_up" not in excluded:
        text = _back_up(text)
    return clean_completion(text, cursor, excluded=excluded)


def clean_completion(text: str, cursor: Cursor, *, excluded: Collection[str] = ()) -> str:
    """The steps for completions, then the quality rule."""
    if len(text) > _MAX_CHARS:
        return _blank_to_empty(text, cursor)
    if "strip_fences" not in excluded:
        text = _unwrap(text, cursor)
    # What was there already would lead the trees astray.
    begun = text
    indented = text = drop_repeated_start(text, cursor.prefix)
    started, ended = text if text == begun else "", ""
    """Texts whose start, and end, are known to repeat nothing."""
    drops_end = "drop_suffix_repeat" not in excluded
    for name, step in COMPLETION_STEPS.items():
        if name == "trim_to_block" and drops_end:
            # Trimmed, it no longer ends like the code behind the cursor.
            text = drop_closed_again(text, cursor.prefix, cursor.suffix)
            text = drop_closed_below(text, cursor.prefix, cursor.suffix)
            text = ended = _drop_suffix_repeat(text, cursor)
        if text and name not in excluded and (name != "drop_suffix_repeat" or text != ended):
            text = step(text, cursor)
            if name == "drop_suffix_repeat":
                ended = text
        if not text:
            return ""
    # The quality rule. Either end may lay bare a repetition at the other one.
    for _ in range(_MAX_ROUNDS):
        if text != started:
            is_indented = indented.startswith(text)
            text = started = indented = drop_repeated_start(text, cursor.prefix, is_indented=is_indented)
        if text == ended:
            break
        text = ended = drop_repeated_end(text, cursor.prefix, cursor.suffix, cursor.grammar, cursor.trees)
    return _blank_to_empty(text, cursor)


def clean_generation(text: str, cursor: Cursor, *, excluded: Collection[str] = ()) -> str:
    """The steps for generations that are not streamed."""
    if len(text) > _MAX_GENERATION_CHARS:
        return _blank_to_empty(text, cursor)
    for name, step in GENERATION_STEPS.items():
        if name not in excluded:
            text = step(text, cursor)
    return text


def _unwrap(text: str, cursor: Cursor) -> str:
    if "```" not in text:
        return text
    typed = cursor.prefix[cursor.prefix.rfind("\n") + 1 :].lstrip()
    # Within comments and docstrings, examples stand between fences.
    is_prose = is_comment_line(typed, cursor.language) or any(cursor.prefix.count(quotes) % 2 for quotes in DOCSTRINGS)
    return text if is_prose else unwrap(text, cursor.language)


def _drop_comments(text: str, cursor: Cursor) -> str:
    if not is_only_comments(text, cursor.language):
        return text
    return "" if begins_comment(cursor.prefix, text, cursor.suffix, cursor.grammar, cursor.trees) else text


def _remove_markers(text: str, cursor: Cursor) -> str:
    if "<" not in text:
        return text
    # A file about such marks may well contain them.
    is_subject = _MARKERS.search(cursor.prefix) or _MARKERS.search(cursor.suffix)
    return text if is_subject else _MARKERS.sub("", text)


def _trim_to_block(text: str, cursor: Cursor) -> str:
    end = end_of_block(cursor.prefix, text, cursor.suffix, cursor.grammar, cursor.trees)
    # The white space behind a block costs nothing, and some of it is wanted.
    return text if end is None or not text[end:].strip() else text[:end].rstrip()


def _drop_suffix_repeat(text: str, cursor: Cursor) -> str:
    return drop_repeated_end(text, cursor.prefix, cursor.suffix, cursor.grammar, cursor.trees)


def _drop_blocks(text: str, cursor: Cursor) -> str:
    return drop_repeated_blocks(text, cursor.prefix)


def _blank_to_empty(text: str, cursor: Cursor) -> str:
    return text if text.strip() else ""


def _strip_fences(text: str, cursor: Cursor) -> str:
    return strip_fences(text, cursor.language)


def _begin_on_new_line(text: str, cursor: Cursor) -> str:
    return text if cursor.prefix.endswith("\n") or text.startswith(("\n", "\r\n")) else f"\n{text}"


def _drop_repeats(text: str, cursor: Cursor) -> str:
    return drop_loops(drop_repeated_blocks(text, cursor.prefix))


def _back_up(text: str) -> str:
    """`text` without the word that the output cap cut in two."""
    shorter = _PARTIAL_WORD.sub("", text)
    return shorter if shorter.strip() else text


Step = Callable[[str, Cursor], str]

COMPLETION_STEPS: dict[str, Step] = {
    "drop_comments": _drop_comments,
    "remove_markers": _remove_markers,
    "trim_to_block": _trim_to_block,
    "drop_suffix_repeat": _drop_suffix_repeat,
    "drop_repeated_blocks": _drop_blocks,
    "blank_to_empty": _blank_to_empty,
}
"""Name → step, in order; before them come `strip_fences`, and for some models `strip_asterisks` and `back_up`."""

GENERATION_STEPS: dict[str, Step] = {
    "strip_fences": _strip_fences,
    "begin_on_new_line": _begin_on_new_line,
    "drop_repeated_blocks": _drop_repeats,
    "blank_to_empty": _blank_to_empty,
}

STEP_NAMES = frozenset({*COMPLETION_STEPS, *GENERATION_STEPS, "strip_asterisks", "back_up", "drop_unsure"})
"""All that may be left out; `drop_unsure` drops answers below the operator's threshold, before they come here."""
