"""What a chat needs from a Hugging Face model folder: tokenizer, special tokens, template, window."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rightcall.errors import RecipeError

TEMPLATES = Path(__file__).parent / "templates"
# All that is read of a model folder; weights are not.
FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
    "config.json", "generation_config.json",
)  # fmt: skip
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def template_names() -> list[str]:
    return sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def named_template(name: str) -> str:
    if name not in template_names():
        raise RecipeError(f"model.chat_template is {name!r}; choose one of {template_names()!r} or leave it out")
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


class ModelFolder:
    """What FILES of one model folder say, read once.

    Raises:
        RecipeError: the tokenizer is missing, or a file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        file = path / "tokenizer.json"
        if not file.is_file():
            raise RecipeError(
                f"base model folder {str(path)!r} has no tokenizer.json: copy the tokenizer files beside the weights "
                "(tokenizer.json, tokenizer_config.json, chat_template.jinja) or name another model.source"
            )
        try:
            self.tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        except Exception as err:
            raise RecipeError(
                f"{str(file)!r} is not a tokenizer: {err}; copy it again from the model's source"
            ) from err
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.config = self._read("tokenizer_config.json")
        self.special_tokens: dict[str, str] = self._special_tokens()
        self._added = self.tokenizer.get_added_tokens_decoder()
        self.special_ids: dict[str, int] = {token.content: id_ for id_, token in self._added.items() if token.special}
        self.eos_ids: set[int] = self._eos_ids()
        self.pad_id: int | None = self._pad_id()
        self.max_length: int = self._max_length()

    def own_template(self) -> str:
        """chat_template.jinja, or the one in chat_template.json or tokenizer_config.json, in transformers' order."""
        file = self.path / "chat_template.jinja"
        if file.is_file():
            return file.read_text(encoding="utf-8")
        template = self._read("chat_template.json").get("chat_template") or self.config.get("chat_template")
        if isinstance(template, list):
            named = {entry["name"]: entry["template"] for entry in template}
            template = named.get("tool_use") or named.get("default")
        if not isinstance(template, str):
            raise RecipeError(
                f"base model folder {str(self.path)!r} has no chat template; "
                f"set model.chat_template to one of {template_names()!r}"
            )
        return template

    def splitter(self) -> re.Pattern[str] | None:
        """Pattern of special tokens that cut a text into pieces which may be tokenised alone; None = there are none."""
        plain = [token for token in self._added.values() if not (token.lstrip or token.rstrip or token.single_word)]
        tokens = [token.content for token in plain if token.special and not token.normalized]
        if not tokens:
            return None
        pattern = re.compile("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")")
        # sentencepiece-like tokenizers treat the start of a text specially; this text shows it
        probe = f"{tokens[0]}user\nA 1 é{tokens[0]}{tokens[-1]} b \n {tokens[-1]}\n\nc  d"
        pieces = [self.tokenizer.encode(piece, add_special_tokens=False).ids for piece in pattern.split(probe)]
        return pattern if list(chain(*pieces)) == self.tokenizer.encode(probe, add_special_tokens=False).ids else None

    def _read(self, name: str) -> dict[str, Any]:
        file = self.path / name
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as err:
            raise RecipeError(f"{str(file)!r} is not JSON: {err}; copy it again from the model's source") from err
        return content if isinstance(content, dict) else {}

    def _special_tokens(self) -> dict[str, str]:
        found = self._read("special_tokens_map.json") | {k: v for k, v in self.config.items() if v is not None}
        values = {name: found[name] for name in NAMED_TOKENS if found.get(name)}
        return {name: value["content"] if isinstance(value, dict) else str(value) for name, value in values.items()}

    def _eos_ids(self) -> set[int]:
        named = self.tokenizer.token_to_id(self.special_tokens.get("eos_token", ""))
        ids: set[int] = set() if named is None else {named}
        for name in ("generation_config.json", "config.json"):
            value = self._read(name).get("eos_token_id")
            ids |= {value} if isinstance(value, int) else set(value or ())
        return ids

    def _pad_id(self) -> int | None:
        named = self.tokenizer.token_to_id(self.special_tokens.get("pad_token", ""))
        configured = self._read("config.json").get("pad_token_id")
        return named if named is not None else configured

    def _max_length(self) -> int:
        """Tokens in the window; transformers writes 1e30 for "unknown"."""
        limits = [self.config.get("model_max_length"), self._read("config.json").get("max_position_embeddings")]
        known = [int(limit) for limit in limits if isinstance(limit, (int, float)) and 0 < limit < 1e9]
        return min(known) if known else 2048
