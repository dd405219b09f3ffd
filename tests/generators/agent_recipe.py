"""The record and the recipe of docs/your-agent.md: the first conversation of the example log, and what flows.init writes for it.

python tests/generators/agent_recipe.py --write     # after a change of flows.init or the schema
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from agent_example import conversations, write_agent_example
from field_list import PAGE

ROOT = Path(__file__).parents[2]
COMMAND = ["conversations.jsonl", "--tools", "tools.json", "--system", "policy.md", "--out", "my-agent.yaml"]


def record() -> str:
    """Of the pending kind, so that a call with every step before it is seen."""
    lines = [json.dumps(message, ensure_ascii=False) for message in conversations(1)[0]["messages"]]
    first = json.dumps({name: value for name, value in conversations(1)[0].items() if name != "messages"})
    return f'{first[:-1]}, "messages": [\n  ' + ",\n  ".join(lines) + "\n]}"


def recipe() -> str:
    """As it is written in an empty store: no tokenizer is at hand."""
    with tempfile.TemporaryDirectory() as folder:
        write_agent_example(Path(folder))
        path = os.pathsep.join([str(ROOT), str(ROOT / "training_image")])
        environment = os.environ | {"PYTHONPATH": path, "RIGHTCALL_HOME": folder, "RIGHTCALL_STORE": f"{folder}/store"}
        command = [sys.executable, "-m", "flows.init", *COMMAND]
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        return (Path(folder) / "my-agent.yaml").read_text(encoding="utf-8").strip()


def on_page(name: str) -> str:
    found = re.search(
        rf"<!-- {name} -->\n```\w+\n(.*?)\n```\n<!-- /{name} -->", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found, name
    return found[1]


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    for name, made in (("record", record()), ("recipe", recipe())):
        text = text.replace(f"\n{on_page(name)}\n```\n<!-- /{name} -->", f"\n{made}\n```\n<!-- /{name} -->")
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
