"""Small tokenizers of the usual kinds, with few enough words that texts differ in density."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

WORDS = "def function(argument, other):\n    return argument + other\n\n\nclass Example:\n    name: str = ''\n"


def write_tokenizer(path: Path) -> Tokenizer:
    """Writes a `tokenizer.json` that is set to cut, as files for training are; returns it without that."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<bos>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    whole = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.enable_truncation(16)
    path.write_text(json.dumps(json.loads(tokenizer.to_str())))
    return whole


def write_pieces_tokenizer(path: Path) -> None:
    """Of the kind of SentencePiece: spaces are letters, one is put in front, strange letters are bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(path))
