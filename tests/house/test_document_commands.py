"""Every command and snippet of the documents runs, as it stands, or is in a table that says why it cannot run here."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from document_checkout import Checkout, checkout, free_port, shrink_agent
from documents import ROOT, blocks, commands
from processes import until

from rightcall.recipe.loading import load_recipe

LANGUAGES = {"sh", "python", "yaml", "json", "text"}
ACCOUNT = "needs an AWS account; tests/house/test_sagemaker_guide.py holds it against botocore"
# Commands, by a pattern for the whole line, and why they do not run here.
CANNOT_RUN = {
    r"(ACCOUNT=\$\()?aws .*": ACCOUNT,
    r"python -m flows\.pipeline .*--set compute\.backend=sagemaker.*": f"{ACCOUNT}; test_sagemaker_pipeline.py runs it",
    r"python -m tasks\.costs\.prices.*": "needs AWS credentials; tests/costs/test_prices.py",
    r"prefect deployment schedule resume pipeline/pipeline ID": "the ID is the reader's own; test_deployed_project.py resumes all",
    r"make setup": "downloads the environment that this test runs in",
    r"make test": "is this suite",
    r"make check": "minutes of mypy over the whole tree; runs before this suite",
    r"make bench": "measures for minutes",
    r"buildah login": "needs a registry",
    r"make image.*": "needs docker or buildah, and a registry; tests/house/test_image.py",
    r"make quickstart-sagemaker": "minutes; tests/end_to_end/test_sagemaker_pipeline.py runs its program",
    r"make ui": "listens on fixed ports; its command is among the closing lines, which run below",
}
# Commands that go on until Ctrl-C, and what they write when they are ready.
SERVERS = {
    "prefect server start": "Check out the dashboard",
    "prefect worker start --pool rightcall": "started!",
}
# With the steps of the README's run, whose results are there by then.
PLACEHOLDERS = {"RECIPE": "recipes/quickstart.yaml --set sft.max_steps=50"}
QUICKSTART = "make quickstart"
AGENT_RECIPE = "python -m flows.init conversations.jsonl --tools tools.json --system policy.md --out my-agent.yaml"


def reason(command: str) -> str | None:
    return next((why for pattern, why in CANNOT_RUN.items() if re.fullmatch(pattern, command)), None)


RUNNABLE = [command for command in commands() if reason(command) is None]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The commands' one checkout; its Prefect server spares every command the 10 seconds of a server of its own."""
    with checkout(tmp_path_factory.mktemp("reader") / "rightcall") as opened:
        opened.start("prefect server start", SERVERS["prefect server start"])
        health = f"{opened.environment['PREFECT_API_URL']}/health"
        until(lambda: answers(health), "the Prefect server does not answer")
        yield opened


@pytest.fixture(scope="module")
def closing_lines(reader: Checkout) -> dict[str, str]:
    """What the quickstart's last lines say to type, by what it opens."""
    return commands_at_the_end(reader.run(QUICKSTART))


@pytest.fixture(scope="module")
def agent(reader: Checkout) -> Path:
    """The recipe that flows.init wrote for the example log, with a tiny model in it."""
    reader.run(AGENT_RECIPE)
    recipe = reader.folder / "my-agent.yaml"
    shrink_agent(recipe, reader.folder / "my-model")
    return recipe


def commands_at_the_end(text: str) -> dict[str, str]:
    return dict(re.split(r"  +", line, maxsplit=1) for line in text.partition("report: ")[2].splitlines()[1:])


def test_every_block_says_what_it_is() -> None:
    found = list(blocks())
    assert found
    assert [block for block in found if block.language not in LANGUAGES] == []


def test_the_table_names_nothing_that_the_documents_do_not_say() -> None:
    for pattern in CANNOT_RUN:
        assert any(re.fullmatch(pattern, command) for command in commands()), pattern
    assert set(SERVERS) <= set(RUNNABLE)


def test_every_make_verb_exists(reader: Checkout) -> None:
    for command in commands():
        if command.startswith("make "):
            reader.run(f"make --dry-run {command.removeprefix('make ')}")


@pytest.mark.parametrize("command", RUNNABLE)
def test_the_command_runs(
    command: str, reader: Checkout, closing_lines: dict[str, str], request: pytest.FixtureRequest
) -> None:
    if "my-agent" in command:
        request.getfixturevalue("agent")
    if command in SERVERS:
        reader.start(command, SERVERS[command])
    elif command not in (QUICKSTART, AGENT_RECIPE):  # these have run: the others are about what they leave
        words = r"\b(" + "|".join(PLACEHOLDERS) + r")\b"
        reader.run(re.sub(words, lambda match: PLACEHOLDERS[match[0]], command))


def test_a_snippet_runs_in_the_checkout_and_in_a_script_elsewhere(
    reader: Checkout, closing_lines: dict[str, str], agent: Path, tmp_path: Path
) -> None:
    reader.run("python -m flows.publish --approve 1")  # two steps on random weights are no GO
    reader.run(f"python -m flows.pipeline {agent.name}")
    reader.run(f"python -m flows.publish {agent.name} --approve 1")
    for block in blocks():
        if block.language == "python":
            (tmp_path / "script.py").write_text(block.text)
            for folder in (reader.folder, tmp_path):
                before = set(folder.iterdir())
                said = reader.run(f"python {tmp_path / 'script.py'}", folder)
                assert "'role': 'assistant'" in said
                assert set(folder.iterdir()) == before


def test_the_readmes_snippet_is_the_closing_line(closing_lines: dict[str, str]) -> None:
    (snippet,) = [block.text for block in blocks() if (block.document, block.language) == ("README.md", "python")]
    (line,) = [command for command in closing_lines.values() if " -c " in command]
    asked = re.sub(r"@\w+", "@champion", shlex.split(line)[-1])
    assert ast.dump(ast.parse(snippet)) == ast.dump(ast.parse(asked))


@pytest.mark.parametrize("own", [False, True], ids=["usual places", "own places"])
def test_the_closing_lines_run_as_they_are_printed(own: bool, reader: Checkout, tmp_path: Path) -> None:
    folder = reader.folder
    lines = commands_at_the_end(reader.run(QUICKSTART))  # again: another test may have approved the version meanwhile
    if own:
        folder = tmp_path / "a folder"
        shutil.copytree(reader.folder / ".rightcall/store", folder / "results")
        settings = "RIGHTCALL_STORE=results MLFLOW_TRACKING_URI=sqlite:///registry.db"
        recipe = shlex.quote(str(reader.folder / "recipes/quickstart.yaml"))
        lines = commands_at_the_end(reader.run(f"{settings} python -m flows.pipeline {recipe}", folder))
        assert all(setting in line for line in lines.values() for setting in settings.split())
    assert "Prefect and MLflow" in lines
    for title, line in lines.items():
        if title == "Prefect and MLflow":
            open_in_browser(reader, f"cd {shlex.quote(str(folder))} && {line}")
        else:
            assert "'role': 'assistant'" in reader.run(line, folder)


def open_in_browser(reader: Checkout, command: str) -> None:
    """Both pages answer, and Ctrl-C ends both servers."""
    ports = (free_port(), free_port())
    command = f"{command} --prefect-port {ports[0]} --mlflow-port {ports[1]}"
    reader.start(command, "Ctrl-C ends")
    for port in ports:
        until(lambda port=port: answers(f"http://127.0.0.1:{port}/"), f"nothing on port {port}")  # type: ignore[misc]
    reader.interrupt(command)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as page:  # noqa: S310  an address of this machine
            return page.status == 200
    except OSError:
        time.sleep(0.2)
        return False


def test_a_password_in_the_registrys_address_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.reporting.closing_table import next_commands
    from tasks.store.opening import open_store
    from tasks.tracking.registry import Registration

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:geheim@db/mlflow")
    registration = Registration(
        name="rightcall", version=1, alias="champion", digest="0", verdict="GO", pending_approval=True
    )
    for line in next_commands(open_store(), load_recipe(None), registration).values():
        assert 'MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:?}" ' in line
        assert "geheim" not in line


def test_a_yaml_block_is_a_recipe_or_sections_of_one(tmp_path: Path) -> None:
    sections = [yaml.safe_load(block.text) for block in blocks() if block.language == "yaml"]
    assert sections
    for section in sections:
        if "name" in section:
            (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(section))
            load_recipe(tmp_path / "recipe.yaml")
            continue
        overrides = [f"{name}.{key}={value}" for name, fields in section.items() for key, value in fields.items()]
        load_recipe(ROOT / "recipes/quickstart.yaml", overrides)
