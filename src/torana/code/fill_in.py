"""Fill-in-the-middle: the code around a cursor between a model family's own markers (contract 10.4).

Source: the families' public model cards. `FamilyRecord.fill_in` names a format.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FillInFormat:
    """How one family marks the code around a cursor."""

    before: str
    between: str
    after: str
    stop: tuple[str, ...]
    """The family's markers, and what ends a file; four at most, some servers refuse more."""
    is_suffix_first: bool = False


_BARS = FillInFormat(
    before="<|fim_prefix|>",
    between="<|fim_suffix|>",
    after="<|fim_middle|>",
    stop=("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"),
)

FORMATS: dict[str, FillInFormat] = {
    "codegemma": _BARS,
    "codellama": FillInFormat(
        before="<PRE> ", between=" <SUF> ", after=" <MID>", stop=("<PRE>", "<SUF>", "<MID>", "<EOT>")
    ),
    "codestral": FillInFormat(
        before="[SUFFIX]", between="[PREFIX]", after="", stop=("[PREFIX]", "[SUFFIX]", "[MIDDLE]"), is_suffix_first=True
    ),
    "qwen": FillInFormat(
        before=_BARS.before, between=_BARS.between, after=_BARS.after, stop=(*_BARS.stop[:3], "<|file_sep|>")
    ),
    # Full-width bars and the block character are the model's own tokens, not typing errors.
    "deepseek": FillInFormat(
        before="<｜fim▁begin｜>",
        between="<｜fim▁hole｜>",
        after="<｜fim▁end｜>",
        stop=("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "<｜end▁of▁sentence｜>"),
    ),
}


def mark_cursor(format_name: str, prefix: str, suffix: str, context: str = "") -> str:
    """The marked prompt. `context` stands before the prefix, on lines of its own.

    Raises KeyError for a name that is not in FORMATS.
    """
    form = FORMATS[format_name]
    above = f"{context}\n{prefix}" if context else prefix
    first, second = (suffix, above) if form.is_suffix_first else (above, suffix)
    return f"{form.before}{first}{form.between}{second}{form.after}"
