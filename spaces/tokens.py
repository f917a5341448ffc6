"""Token ids as text, by the tokenizer file of the checkpoint they belong to."""

from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from data import Source
from places import Place


def tokenizer_of(source: Source, checkpoint: Place | None) -> Tokenizer | None:
    """The tokenizer of a checkpoint's repository; None where there is none that can be read."""
    path = source.tokenizer_file(checkpoint) if checkpoint else None
    return _opened(path) if path else None


@lru_cache(8)
def _opened(path: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # whatever a broken file makes the parser say: ids are shown instead of text
        return None


def decoded(tokenizer: Tokenizer | None, ids: list[int] | None) -> str | None:
    """The ids as one text, special tokens included; None without either, and for what are no ids."""
    if tokenizer is None or ids is None or not all(isinstance(each, int) and each >= 0 for each in ids):
        return None
    return tokenizer.decode(ids, skip_special_tokens=False)


def pieces(tokenizer: Tokenizer | None, ids: list[int]) -> list[str]:
    """One text for each token, together the whole; one that ends inside a character is joined with the next.

    A token's text is what it adds to the few before it: some tokenizers drop the space before what they begin with.
    """
    if tokenizer is None:
        return [f"[{token}]" for token in ids]
    texts: list[str] = []
    begun: list[int] = []
    before: list[int] = []
    for token in ids:
        begun.append(token)
        known = tokenizer.decode(before, skip_special_tokens=False)
        text = tokenizer.decode([*before, *begun], skip_special_tokens=False).removeprefix(known)
        if text.endswith("\ufffd") and len(begun) < 4:
            texts.append("")
        else:
            texts.append(text)
            before, begun = [*before, *begun][-4:], []
    return texts
