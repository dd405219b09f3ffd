"""A copy of the checkout in which the documents' commands run as they stand: the quickstart's recipe is a tiny one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from agent_example import write_agent_example
from documents import ROOT
from processes import until
from tiny import build_tiny_model, write_tiny_sources

from tasks.machine.child_processes import end_group

COMMAND_SECONDS = 550
# Set by importing tasks in this process, or by whoever runs the tests: a reader's shell has none of them.
OURS = ("RIGHTCALL_", "PREFECT_", "MLFLOW_", "AWS_", "MAKE")


@dataclass
class Checkout:
    folder: Path
    environment: dict[str, str]
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, command: str, cwd: Path | None = None, **environment: str) -> str:
        """What it writes to stdout; a command that fails fails the test with all it wrote."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=cwd or self.folder, env=self.environment | environment,
            capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, command: str, ready: str) -> None:
        """A command that goes on until the module's end; returns when it has written ``ready``."""
        if command in self.children:
            return
        log = self.folder / f".{len(self.children)}.log"
        with log.open("wb") as stream:
            self.children[command] = subprocess.Popen(
                ["bash", "-c", command], cwd=self.folder, env=self.environment | {"PYTHONUNBUFFERED": "1"},
                stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        child = self.children[command]
        until(lambda: ready in log.read_text() or child.poll() is not None, f"{command} was never ready")
        assert ready in log.read_text(), log.read_text()

    def interrupt(self, command: str) -> int:
        """As Ctrl-C in its terminal; its exit code."""
        child = self.children.pop(command)
        os.killpg(child.pid, signal.SIGINT)
        return child.wait(COMMAND_SECONDS)


@contextmanager
def checkout(folder: Path) -> Iterator[Checkout]:
    """Everything that git would carry, with a virtual environment of links to this one."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    link_environment(folder / ".venv")
    shrink_recipe(folder / "recipes/quickstart.yaml", folder / "stand-ins")
    template = ROOT / "training_image/rightcall/chat/templates/chatml-tools.jinja"
    shutil.copy(template, build_tiny_model(folder / "my-model", seed=1) / "chat_template.jinja")
    shutil.copy(write_tiny_sources(folder / "stand-ins")["choice"], folder / "items.jsonl")
    write_agent_example(folder)
    opened = Checkout(folder, environment_of(folder))
    try:
        yield opened
    finally:
        for child in reversed(opened.children.values()):
            end_group(child, 20)


def link_environment(folder: Path) -> None:
    folder.mkdir()
    for entry in Path(sys.prefix).iterdir():
        (folder / entry.name).symlink_to(entry)
    (folder / ".installed").unlink(missing_ok=True)
    (folder / ".installed").touch()  # newer than the copies beside it: make has nothing to install


def environment_of(folder: Path) -> dict[str, str]:
    """A reader's shell with the environment activated; PYTHONPATH stands for `pip install -e` of the copy."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    port = free_port()
    return own | {
        "PATH": f"{folder / '.venv/bin'}:{own['PATH']}",
        "PYTHONPATH": f"{folder}:{folder / 'training_image'}",
        "PREFECT_SERVER_API_PORT": str(port),  # 4200 may be somebody's
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(folder / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def shrink_recipe(path: Path, folder: Path) -> None:
    """The same recipe with everything that is expensive in it exchanged; its conversations are the example's."""
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe["model"] = recipe["model"] | {"source": str(build_tiny_model(folder / "model"))}
    del recipe["model"]["sha256"]
    write_agent_example(folder)
    heard = {"uri": "conversations.jsonl", "tools": "tools.json", "system": "policy.md"}
    recipe["data"]["conversations"] = [{field: str(folder / name) for field, name in heard.items()}]
    recipe["data"] |= {"evaluation_share": 0.4, "step_rows": 8, "tolerance": 0.5}
    recipe["sft"] |= {"max_steps": 2, "warmup_steps": 0, "frozen_layers": 1, "per_device_train_batch_size": 2}
    recipe["dpo"] |= {"frozen_layers": 1, "per_device_train_batch_size": 2}
    recipe["mine"] = {"steps": 8, "max_new_tokens": 4}
    recipe["evaluation"] |= {"max_new_tokens": 4, "bootstrap_samples": 200}
    recipe["compute"]["threads"] = 1
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")


def shrink_agent(path: Path, model: Path) -> None:
    """The recipe that flows.init wrote, with the tiny model, two steps, and turns as short as its window asks for."""
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe["model"] = {"source": str(model)}
    recipe["data"] |= {"tolerance": 0.5, "step_rows": 8}
    recipe["sft"] |= {"max_steps": 2, "frozen_layers": 1, "per_device_train_batch_size": 2, "max_length": 2048}
    recipe["evaluation"] = {"max_new_tokens": 4, "bootstrap_samples": 200}
    recipe["compute"] = {"threads": 1}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
