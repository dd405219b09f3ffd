"""What becomes of each chat template of the corpus when a model with it is loaded, for docs/templates.md.

PYTHONPATH=tests/support python tests/generators/template_table.py --write     # after a change of the check, of a dialect, or of TRL
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from field_list import main
from template_corpus import OURS, TRL, corpus_tokenizer, folder_with

from rightcall.chat.template import ChatTemplate
from rightcall.errors import RecipeError
from rightcall.toolcalls.template_check import load_template

PAGE = Path(__file__).parents[2] / "docs" / "templates.md"
LONGEST = 150  # characters of a reason


def template_table() -> str:
    with TemporaryDirectory() as folder:
        tokenizer = corpus_tokenizer(Path(folder) / "tokenizer")
        ours = list(_lines(OURS, tokenizer, Path(folder) / "ours"))
        shipped = list(_lines(TRL, tokenizer, Path(folder) / "trl"))
    loaded = [sum(" | yes | " in line for line in lines) for lines in (ours, shipped)]
    head = ["| template | loads | calls are written as, or why it is refused |", "|---|---|---|"]
    return "\n".join([
        f"{loaded[0]} of {len(ours)} by our own wording of the format's rules (tests/support/chat_templates):", "",
        *head, *ours, "",
        f"{loaded[1]} of the {len(shipped)} that TRL ships:", "",
        *head, *shipped,
    ])  # fmt: skip


def _lines(corpus: Mapping[str, Path], tokenizer: Path, folder: Path) -> Iterator[str]:
    for name, path in corpus.items():
        source = path.read_text(encoding="utf-8")
        rule = re.match(r"\{#- (.*?) -#\}\n", source) if corpus is OURS else None
        said = f"`{name}`" + (f": {_plain(rule[1])}" if rule else "")
        model = folder_with(tokenizer, folder / name, source)
        try:
            yield f"| {said} | yes | {_form(load_template(model))} |"
        except RecipeError as err:
            yield f"| {said} | no | {_plain(_reason(str(err), model))} |"


def _form(template: ChatTemplate) -> str:
    form, edges = template.form, template.edges
    notes = [
        f"`` {template.dialect} ``",
        "arguments as JSON text" if form.arguments == "text" else "",
        "ids as `functions.NAME:0`" if form.ids == "named" else "",
        "`content` null beside calls" if form.content is None else "",
        f"prompts go on with `{edges.opening!r}`" if edges.opening.strip() else "",
        f"answers follow the prompt's `{edges.unanswered!r}`" if edges.unanswered else "",
        f"no text like {', '.join(f'`{text!r}`' for text in template.spoilt)} in a call" if template.spoilt else "",
        f"a call ends with `{edges.call_end.token}`" if edges.call_end.token != edges.text_end.token else "",
    ]
    return "; ".join(filter(None, notes)).replace("|", "\\|")


def _reason(message: str, model: Path) -> str:
    if found := re.search(r"written: (.*?); read back: (.*?); meant:", message):
        written, read = found.groups()
        forgiven = re.search(r", with ([a-z_, ]+)$", read)
        how = f"read only with {forgiven[1]} forgiven" if forgiven else f"read as {read[:60]}…"
        return f"{how}: {written[:70]}…"
    message = re.sub(r"; set model\.chat_template to one of \[[^\]]*\]", "", message)
    message = message.replace(f"the chat template of {model} ", "").replace("; correct or quarantine the row", "")
    return message if len(message) <= LONGEST else f"{message[:LONGEST]}…"


def _plain(text: str) -> str:
    return re.sub(r"([|<>*_`\[\]])", r"\\\1", " ".join(text.split()))


if __name__ == "__main__":
    sys.exit(main("template_table", template_table, PAGE))
