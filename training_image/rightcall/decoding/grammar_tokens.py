"""The bytes that each token of a vocabulary stands for: a mask is about bytes, and a token may hold half a character.

Ġcity → b" city"      <0xE6> → b"\\xe6"      ▁city → b" city"      <tool_call> → b"<tool_call>"
"""

from __future__ import annotations

import re

from llguidance import LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer

from rightcall.errors import RecipeError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def engine_tokenizer(tokenizer: Tokenizer, eos_ids: list[int], literal: str) -> LLTokenizer:
    """The vocabulary as the engine takes it. Special tokens match nothing, but those that `literal` holds are text.

    Raises:
        RecipeError: the tokenizer's tokens are neither byte-level nor with a fallback to bytes.
    """
    return LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer, eos_ids, literal)), eos_token=eos_ids)


class _Vocabulary:
    """What LLTokenizer reads. Its own reading of a tokenizer.json would know fewer kinds than `tokenizers` does."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, eos_ids: list[int], literal: str) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = eos_ids[0]
        self.tokens = token_bytes(tokenizer)
        added = tokenizer.get_added_tokens_decoder()
        special = {id_ for id_, token in added.items() if token.special and token.content not in literal}
        unused = {id_ for id_, content in enumerate(self.tokens) if not content}
        self.special_token_ids = sorted(special | unused | set(eos_ids))
        for id_ in unused:
            self.tokens[id_] = f"<unused {id_}>".encode()

    def __call__(self, text: bytes | str) -> list[int]:
        plain = text.decode(errors="replace") if isinstance(text, bytes) else text
        return list(self._tokenizer.encode(plain, add_special_tokens=False).ids)


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """By token id; b"" where no token has that id.

    Raises:
        RecipeError: as in `engine_tokenizer`.
    """
    decoder = tokenizer.decoder.__getstate__() if tokenizer.decoder is not None else b""
    added = tokenizer.get_added_tokens_decoder()
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    found = [b""] * (max(vocabulary.values()) + 1)
    if b'"ByteLevel"' in decoder:
        of_character = _bytes_of_characters()
        for token, id_ in vocabulary.items():
            known = id_ not in added and all(character in of_character for character in token)
            found[id_] = bytes(of_character[character] for character in token) if known else token.encode()
    elif b'"ByteFallback"' in decoder:
        for token, id_ in vocabulary.items():
            byte = _BYTE.fullmatch(token)
            plain = token if id_ in added else token.replace("▁", " ")
            found[id_] = bytes([int(byte[1], 16)]) if byte else plain.encode()
    else:
        raise RecipeError(
            f"the grammar cannot tell which bytes the tokens of this tokenizer stand for (decoder {decoder[:80]!r}); "
            "set evaluation.grammar: false"
        )
    return found


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes are themselves, the others the characters from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
