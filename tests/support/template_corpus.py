"""Chat templates to try the loading of a model with: those that TRL ships, and our own wordings of the rules of others.

The files in chat_templates/ were written from what is known of a format, in a few lines each; none is a copy.
"""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from tiny import build_tiny_tokenizer
from tokenizers import Tokenizer

TRL = {path.stem: path for path in sorted(Path(str(find_spec("trl").origin)).parent.glob("chat_templates/*.jinja"))}
OURS = {path.stem: path for path in sorted((Path(__file__).parent / "chat_templates").glob("*.jinja"))}

# Whatever looks like a control token is one, or a template would be refused for want of its own.
_CONTROL_TOKEN = re.compile(
    r"<[|｜][^<>\s]+>|<\w+\|>|<(?:start|end)_\w+>|<escape>|<eos>|<bos>|</?s>|\[/?[A-Z_]{4,}\]|\]~!b\[|\]~b\]|\[e~\["
)
# As the generation_config.json of these models names them: some stop at the token that opens the next role.
_STOPS = (
    "<|im_end|>", "<|eot_id|>", "<|eot|>", "<|end|>", "</s>", "<end_of_turn>", "<turn|>", "<|end_of_text|>",
    "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>", "<|call|>", "<|return|>", "<|user|>", "<|observation|>",
    "<|tool_response>", "<start_function_response>", "[e~[", "<|eos|>",
)  # fmt: skip


def corpus_tokenizer(folder: Path) -> Path:
    """A model folder without weights whose tokenizer has the control tokens of every template of the corpus."""
    build_tiny_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sources = [path.read_text(encoding="utf-8") for path in (*TRL.values(), *OURS.values())]
    found = {token for source in sources for token in _CONTROL_TOKEN.findall(source)}
    tokenizer.add_special_tokens(sorted({"<|begin_of_text|>", *_STOPS, *found}))
    tokenizer.save(str(folder / "tokenizer.json"))
    stops = [tokenizer.token_to_id(token) for token in _STOPS]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}), encoding="utf-8")
    return folder


def folder_with(tokenizer: Path, target: Path, source: str) -> Path:
    """A copy of the model folder whose own template is this one."""
    folder = shutil.copytree(tokenizer, target / "model")
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    return folder
