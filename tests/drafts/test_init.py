"""`python -m flows.init`: a recipe that loads, from files of every kind; nonsense is refused with what to do."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import TOOLS, WEATHER, call_message, text_message, tiny_sft_rows, write_tiny_sources
from trace_examples import trace_lines, write_traces

from flows.init import main
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from tasks.drafts.recipe_text import _field

Row = dict[str, Any]


def conversation(number: int, **fields: Any) -> Row:
    city = f"Oslo {number}"
    result = {"role": "tool", "tool_call_id": "call_0", "content": '{"sky": "blue"}'}
    messages = [
        {"role": "user", "content": "What is the weather?"}, text_message("Which city, please?"),
        {"role": "user", "content": city}, call_message("get_weather", {"city": city}), result,
        text_message(f"Blue sky in {city}."),
    ]  # fmt: skip
    return {"id": f"c{number}", "user_id": f"u{number // 2}", "messages": messages} | fields


def write(path: Path, records: list[Row]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "log.jsonl", [conversation(number, session_id=number) for number in range(20)])


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(TOOLS))
    return path


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIGHTCALL_STORE", str(tmp_path / "store"))


def init(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and all that was written on the screen."""
    with pytest.raises(SystemExit) as end:
        main([str(each) for each in arguments])
    said = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, said.out + said.err


def test_conversations_become_a_recipe_that_loads_and_says_why(
    log: Path, tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.md"
    policy.write_text("Ask for the city first.")
    out = tmp_path / "mine.yaml"
    code, said = init(capsys, log, "--tools", tools, "--system", policy, "--out", out)
    assert code == 0, said
    assert "20 records, conversations" in said
    assert "60 turns of the assistant, 3.0 each" in said
    assert "user_id, 10 different values; also there: session_id (20)" in said
    assert "characters / 4" in said
    recipe = load_recipe(out)
    (source,) = recipe.data.conversations
    assert [source.uri, source.tools, source.system] == [str(log), str(tools), str(policy)]
    assert (recipe.name, recipe.data.group_by, recipe.dpo.max_steps) == ("mine", "user_id", 0)
    assert recipe.sft.max_steps > 0
    assert recipe.gate.must_improve == ("right",)
    assert "right_decline" not in recipe.gate.must_not_drop  # nobody declines in these conversations
    for command in [line for line in said.splitlines() if line.startswith("  python -m flows.")]:
        assert str(out) in command


def test_every_field_has_the_schemas_description_and_a_reason(
    log: Path, tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    assert init(capsys, log, "--tools", tools, "--out", out)[0] == 0
    lines = out.read_text().splitlines()
    written = yaml.safe_load(out.read_text())
    fields = [f"{section}.{name}" for section, values in written.items() if isinstance(values, dict) for name in values]
    assert len(fields) > 10
    for dotted in fields:
        number = next(
            n for n, line in enumerate(lines) if line.startswith(f"  {dotted.split('.')[1]}:") and _above(lines, n)
        )
        comment = " ".join(line.strip().lstrip("# ") for line in _above(lines, number))
        assert "why: " in comment, dotted
    for dotted in fields:
        description = _field(dotted).description
        assert description
        assert " ".join(description.split()[:4]) in out.read_text().replace("\n  #   ", " ")
    assert set(written) <= {info.alias or name for name, info in Recipe.model_fields.items()}


def _above(lines: list[str], number: int) -> list[str]:
    found = []
    while lines[number - 1].strip().startswith("#"):
        number -= 1
        found.insert(0, lines[number])
    return found


def test_lengths_are_counted_with_the_tokenizer_of_a_folder(
    log: Path, tools: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    code, said = init(capsys, log, "--tools", tools, "--model", tiny_model, "--out", out)
    assert code == 0, said
    assert "characters / 4" not in said
    recipe = load_recipe(out)
    assert (recipe.model.source, recipe.model.chat_template) == (str(tiny_model), "chatml-tools")
    assert recipe.sft.method == "lora"


def test_a_recipe_is_never_replaced_unasked(
    log: Path, tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("# mine\n")
    code, said = init(capsys, log, "--tools", tools, "--out", out)
    assert (code, out.read_text()) == (1, "# mine\n")
    assert "--force" in said
    assert init(capsys, log, "--tools", tools, "--out", out, "--force")[0] == 0
    assert load_recipe(out).name == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "mine.yaml", "store", "tools.json"]


def test_only_the_first_thousand_are_looked_at_and_all_are_counted(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(conversation(number)) + "\n" for number in range(1200))
        file.write("not JSON\n")
    code, said = init(capsys, path, "--tools", tools, "--out", tmp_path / "mine.yaml")
    assert code == 0, said
    assert "1,201 records" in said
    assert "looked at 1,000 of them" in said


def test_items_and_pairs_stand_beside_conversations(
    log: Path, tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_tiny_sources(tmp_path / "rows")
    out = tmp_path / "mine.yaml"
    code, said = init(capsys, log, rows["choice"], rows["preference"], rows["sft"], "--tools", tools, "--out", out)
    assert code == 0, said
    data = load_recipe(out).data
    assert [len(getattr(data, name)) for name in ("conversations", "sft", "preference", "evaluation")] == [1, 1, 1, 1]
    assert load_recipe(out).dpo.max_steps > 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (json.dumps([conversation(1)]), "is one JSON array; write one record a line, as `jq"),
        ("no JSON\n", "no record of"),
        ('{"text": "hello"}\n', "have the fields ['text']; a conversation has messages"),
        ('{"messages": [{"role": "user", "content": "Hi"}]}\n', "none is the assistant's answer to a user"),
        (json.dumps(conversation(1)) + "\n", "call ['get_weather'], but no record has tools; name the file"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(content)
    code, text = init(capsys, path, "--out", tmp_path / "mine.yaml")
    assert code == 1
    assert said in text
    assert not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"name": "a"}', "holds dict, not a list of tools"),
        ("[]", "holds [], not a list of tools"),
        ("tools", "is not JSON"),
        ('[{"description": "no name"}]', "cannot be used"),
    ],
)
def test_a_tools_file_that_is_no_list_is_refused(
    content: str, said: str, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text(content)
    code, text = init(capsys, log, "--tools", tools, "--out", tmp_path / "mine.yaml")
    assert code == 1
    assert said in text


def test_a_wrong_group_names_those_that_would_do(
    log: Path, tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = init(capsys, log, "--tools", tools, "--group-by", "tenant", "--out", tmp_path / "mine.yaml")
    assert code == 1
    assert "'tenant' is a field of 0 of 20 records" in said
    assert "['user_id', 'session_id']" in said


def test_what_cannot_be_measured_or_trained_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_tiny_sources(tmp_path / "rows")
    out = tmp_path / "mine.yaml"
    assert "nothing to measure a model on" in init(capsys, rows["sft"], "--out", out)[1]
    assert "nothing to train on" in init(capsys, rows["choice"], "--out", out)[1]
    assert (
        "is not pinned: write hf:owner/name@"
        in init(capsys, rows["sft"], rows["choice"], "--model", "hf:a/b", "--out", out)[1]
    )
    code, said = init(capsys, rows["sft"], rows["choice"], "--out", out)
    assert code == 0, said


def test_warnings_name_tools_that_nobody_offers_and_a_group_that_holds_most(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools.write_text(json.dumps([tool for tool in TOOLS if tool != WEATHER]))
    path = write(tmp_path / "log.jsonl", [conversation(n, user_id="u1" if n < 9 else "u2") for n in range(10)])
    code, said = init(capsys, path, "--tools", tools, "--out", tmp_path / "mine.yaml")
    assert code == 0, said
    assert "called but not offered: get_weather (10×)" in said
    assert "one group holds 90% of the turns" in said


def test_a_recipe_takes_a_group_that_can_be_split_and_cuts_what_is_too_long(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [conversation(n, user_id="u1" if n < 36 else "u2", session_id=f"s{n // 2}") for n in range(40)]
    records[7]["messages"][0]["content"] = "What is the weather? " * 500
    out = tmp_path / "mine.yaml"
    code, said = init(capsys, write(tmp_path / "log.jsonl", records), "--tools", tools, "--out", out)
    assert code == 0, said
    recipe = load_recipe(out)
    assert recipe.data.group_by == "session_id"
    assert "one group holds" not in said
    assert recipe.data.too_long == "cut_front"
    assert "2.5% are longer than sft.max_length" in out.read_text()


def test_it_starts_without_prefect(log: Path, tools: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom flows.init import main\n"
        f"try: main([{str(log)!r}, '--tools', {str(tools)!r}, '--out', {str(tmp_path / 'mine.yaml')!r}])\n"
        "except SystemExit as end: print(end.code, {'prefect', 'torch', 'great_expectations'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "0 set()"


def test_traces_become_a_recipe_once_consent_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for number in range(40) for line in trace_lines(number, conversation(number))]
    spans, out = write_traces(tmp_path / "spans.jsonl", lines), tmp_path / "mine.yaml"
    code, said = init(capsys, f"traces:{spans}", "--out", out)
    assert (code, out.exists()) == (1, False)
    assert "is what people said to an agent, recorded for another purpose; if they," in said
    code, said = init(capsys, f"traces:{spans}", "--traces-consent", "--out", out)
    assert code == 0, said
    assert "traces:spans.jsonl: 40 records, conversations" in said
    data = load_recipe(out).data
    assert (data.conversations[0].uri, data.traces_consent, data.group_by) == (f"traces:{spans}", True, "user_id")


def test_rows_with_a_behaviour_are_sft_rows() -> None:
    from tasks.drafts.looking import kind_of

    assert kind_of(tiny_sft_rows(4), Path("rows.jsonl")) == "sft"
    assert kind_of([conversation(1)], Path("log.jsonl")) == "conversations"
