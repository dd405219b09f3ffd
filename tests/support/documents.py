"""The commands and snippets of the documents, as a reader meets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "recipes/README.md"]  # fmt: skip
# What `code` within a sentence begins with when it is a command.
PROGRAMS = {"python", ".venv/bin/python", "make", "prefect", "mlflow", "aws", "docker", "buildah", "pip", "git"}


@dataclass(frozen=True)
class Block:
    document: str
    line: int  # of its first line, from 1
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 2
            yield Block(str(document.relative_to(ROOT)), line, match[1], match[2])


def commands() -> list[str]:
    """Every command once, in the documents' order: lines of `sh` blocks, and those that stand within a sentence."""
    found: dict[str, None] = {}
    for document in DOCUMENTS:
        name = str(document.relative_to(ROOT))
        for block in blocks():
            if (block.document, block.language) == (name, "sh"):
                lines = [re.sub(r"(^|\s+)# .*", "", line) for line in block.text.splitlines()]
                found |= dict.fromkeys(filter(None, lines))
        prose = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
        found |= dict.fromkeys(span for span in spans if " " in span and span.split()[0] in PROGRAMS)
    return list(found)
