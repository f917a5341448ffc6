"""Token ids as text, by the tokenizer file of the checkpoint they belong to."""

from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from data import Source
from places import Place


def tokenizer_of(source: Source, checkpoint: Place | None) -> Tokenizer | None:
    """The tokenizer of a checkpoint's repository; None where there is none that can be read."""
    path = source.local_file(checkpoint, "tokenizer.json") if checkpoint else None
    return _opened(path) if path else None


@lru_cache(8)
def _opened(path: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # whatever a broken file makes the parser say: ids are shown instead of text
        return None


def decoded(tokenizer: Tokenizer | None, ids: list[int] | None) -> str | None:
    """The ids as one text, special tokens included; None without either."""
    return None if tokenizer is None or ids is None else tokenizer.decode(ids, skip_special_tokens=False)


def pieces(tokenizer: Tokenizer | None, ids: list[int]) -> list[str]:
    """One text for each token, together the whole; one that ends inside a character is joined with the next."""
    if tokenizer is None:
        return [f"[{token}]" for token in ids]
    texts: list[str] = []
    begun: list[int] = []
    for token in ids:
        begun.append(token)
        text = tokenizer.decode(begun, skip_special_tokens=False)
        if text.endswith("\ufffd") and len(begun) < 4:
            texts.append("")
        else:
            texts.append(text)
            begun = []
    return texts
