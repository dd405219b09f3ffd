"""Mining: what the model writes wrong on training steps becomes rejected sides, the same however often the job is killed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from snapshot_writer import write_rows
from tiny import call_message, text_message, tiny_preference_rows, tiny_sft_rows

from rightcall.chat.template import ChatTemplate
from rightcall.decoding import decoder as decoding
from rightcall.decoding.decoder import Decoder
from rightcall.errors import DataError
from rightcall.evaluation import mine
from rightcall.job.folders import Job, load_job
from rightcall.recipe.sections import MineSection
from rightcall.records.reading import to_canonical
from rightcall.rollouts.mining_report import report, require_pairs
from rightcall.rollouts.pairs import answer_message, balanced, judge, make_pairs
from rightcall.rollouts.steps import choose, fitting, seed_of, training_steps
from rightcall.rows.snapshots import read_snapshot
from rightcall.rows.vocabulary import REJECTED_KINDS
from rightcall.toolcalls.verifier import ERROR_KINDS
from rightcall.training.dpo import held_back
from rightcall.training.encoding import encode_pairs

SETTINGS = MineSection(samples=2, steps=None, max_new_tokens=8)


def sft_rows(n: int = 12) -> list[dict[str, Any]]:
    return [{**row, "trained": None} for row in tiny_sft_rows(n)]


STEPS = training_steps(sft_rows(), [])


def make_job(root: Path, model: Path, monkeypatch: pytest.MonkeyPatch, *, given: int = 0, **changes: Any) -> Job:
    recipe = {
        "name": "tiny", "model": {"source": "tiny", "chat_template": "chatml-tools"},
        "data": {"sft": [{"uri": "a"}], "preference": [{"uri": "b"}], "evaluation": [{"uri": "c"}]},
        "sft": {"max_steps": 1, "learning_rate": 1e-3}, "dpo": {"max_steps": 1, "learning_rate": 1e-3, "max_length": 1024},
        "mine": {"samples": 2, "steps": 8, "max_new_tokens": 6} | changes, "compute": {"threads": 1},
    }  # fmt: skip
    channels = root / "input/data"
    for name in ("job", "dataset"):
        (channels / name).mkdir(parents=True)
    (channels / "job/job.json").write_text(json.dumps({"stage": "mine", "recipe": recipe}))
    (channels / "model").symlink_to(model)
    write_rows(channels / "dataset", "sft", sft_rows())
    if given:
        write_rows(channels / "dataset", "preference", tiny_preference_rows(given))
    monkeypatch.setenv("SM_ML_ROOT", str(root))
    return load_job()


RESULTS = ("mined.jsonl", "mining.json", "preference.parquet")


def results(job: Job) -> dict[str, bytes]:
    return {name: (job.output / name).read_bytes() for name in RESULTS}


def lines_for(texts: dict[str, list[str]], steps: list[dict[str, Any]] = STEPS) -> list[dict[str, Any]]:
    by_id = {step["id"]: step for step in steps}
    return [judge(by_id[name], n, text, cut=False) for name, written in texts.items() for n, text in enumerate(written)]


def written(template: ChatTemplate, message: dict[str, Any]) -> str:
    return template.answer_text(message)


# Which steps


def test_every_trained_turn_is_a_step_but_what_is_evaluated_or_said_twice() -> None:
    talk = tiny_sft_rows(2)
    messages = [*talk[0]["messages"], {"role": "user", "content": "And now?"}, text_message("Done.")]
    row = {**talk[0], "id": "talk", "messages": messages, "trained": [[1, "tool_call"], [3, "direct"]]}
    assert [step["id"] for step in training_steps([row], [])] == ["talk/1", "talk/3"]
    assert [step["behaviour"] for step in training_steps([row], [])] == ["tool_call", "direct"]
    without = {name: value for name, value in row.items() if name != "trained"}
    # the row's one behaviour is that of its last turn
    assert [step["id"] for step in training_steps([without], [])] == ["talk/3"]
    again = {**row, "id": "again"}
    assert [step["id"] for step in training_steps([row, again], [])] == ["talk/1", "talk/3"]
    held_out = training_steps([row], [])[1:]
    assert [step["id"] for step in training_steps([row], held_out)] == ["talk/1"]


def test_chosen_steps_are_balanced_repeatable_and_in_order() -> None:
    chosen = choose(STEPS, 8, seed=1)
    assert Counter(step["behaviour"] for step in chosen) == dict.fromkeys(
        ("tool_call", "request_for_info", "cannot_answer", "direct"), 2
    )
    assert chosen == choose(STEPS, 8, seed=1) != choose(STEPS, 8, seed=2)
    assert [step["id"] for step in chosen] == [step["id"] for step in STEPS if step in chosen]
    assert choose(STEPS, None, seed=1) == STEPS
    assert len({seed_of(1, step, n) for step in STEPS for n in range(4)}) == 4 * len(STEPS)


def test_steps_that_do_not_fit_are_left_out_and_none_is_an_error(template: ChatTemplate) -> None:
    lengths = template.count_tokens([(step["messages"], step["tools"]) for step in STEPS])
    assert len(fitting(STEPS, template, max(lengths) - 1)) == len(STEPS) - lengths.count(max(lengths))
    with pytest.raises(DataError, match=rf"none of the 12 training steps fits into dpo.max_length=9 .*{min(lengths)}"):
        fitting(STEPS, template, 9)


# Pairs


def test_every_error_of_the_verifier_is_a_kind_of_rejected_answer() -> None:
    assert set(ERROR_KINDS) <= set(REJECTED_KINDS)


def test_wrong_answers_become_pairs_that_ingest_and_dpo_take(template: ChatTemplate) -> None:
    call, ask = STEPS[0], STEPS[1]
    other = call_message("get_weather", {"city": "Atlantis"})
    lines = lines_for({
        call["id"]: ["What do you mean?", written(template, other), "<tool_call>\n{broken\n</tool_call>",
                     written(template, call["messages"][-1])],
        ask["id"]: [written(template, other)],
    })  # fmt: skip
    pairs = make_pairs(STEPS, lines, template, SETTINGS, 1024)
    assert [(row["id"], row["rejected_kind"]) for row in pairs.rows] == [
        (f"{call['id']}#0", "asked_when_should_call"), (f"{call['id']}#1", "wrong_value"),
        (f"{call['id']}#2", "unparseable_call"), (f"{ask['id']}#0", "called_when_should_ask"),
    ]  # fmt: skip
    assert pairs.rows[1]["rejected"]["tool_calls"][0]["function"]["arguments"] == {"city": "Atlantis"}
    assert "tool_calls" not in pairs.rows[2]["rejected"]
    texts = ["What do you mean?", written(template, other), lines[2]["text"], written(template, other)]
    encoded = encode_pairs(pairs.rows, template, 1024)
    assert encoded.too_long == 0
    for row, text, ids in zip(pairs.rows, texts, encoded.rows, strict=True):
        assert template.decode(ids["rejected_ids"]) == text + template.end_of_turn
        assert row["n_tokens"] == len(ids["prompt_ids"]) + max(len(ids["chosen_ids"]), len(ids["rejected_ids"]))
        again = to_canonical({name: row[name] for name in row if name != "n_tokens"}, "preference", row["source"], 1)
        assert again["rejected"] == row["rejected"]
        assert again["chosen"] == row["chosen"]


def test_the_same_wrong_answer_is_one_pair_and_gold_is_never_rejected(template: ChatTemplate) -> None:
    ask = STEPS[1]  # its gold turn is a statement, as the verifier reads it
    ask = {**ask, "messages": [*ask["messages"][:-1], text_message("It is done.")]}
    lines = lines_for({ask["id"]: ["It is done.", "It is not.", "It is not. ", "", "It<|im_start|>user"]}, [ask])
    pairs = make_pairs([ask], lines, template, SETTINGS, 1024)
    assert [row["rejected"]["content"] for row in pairs.rows] == ["It is not."]
    assert pairs.left_out == {"gold itself": 1, "the same again": 1, "empty": 1, "no message of the template": 1}


def test_an_own_right_answer_is_chosen_where_there_is_one(template: ChatTemplate) -> None:
    ask, direct = STEPS[1], next(step for step in STEPS if step["behaviour"] == "direct")
    lines = lines_for({ask["id"]: ["It is done.", "Which city, please?"], direct["id"]: ["Which numbers?"]})
    own = SETTINGS.model_copy(update={"chosen": "own"})
    chosen = {row["id"]: row["chosen"]["content"] for row in make_pairs(STEPS, lines, template, own, 1024).rows}
    assert chosen == {f"{ask['id']}#0": "Which city, please?", f"{direct['id']}#0": direct["messages"][-1]["content"]}
    lines[1]["cut"] = True
    cut = make_pairs(STEPS, lines, template, own, 1024)
    assert cut.rows[0]["chosen"] == ask["messages"][-1]


def test_kinds_are_balanced_over_many_steps_first(template: ChatTemplate) -> None:
    calls = [step for step in STEPS if step["behaviour"] == "tool_call"]
    lines = lines_for({
        calls[0]["id"]: ["Which one?", "Which two?", "Which three?", "It is sunny."], calls[1]["id"]: ["Which one?"],
    })  # fmt: skip
    two = SETTINGS.model_copy(update={"pairs_per_kind": 2})
    pairs = make_pairs(STEPS, lines, template, two, 1024)
    kinds = Counter(row["rejected_kind"] for row in pairs.rows)
    assert kinds == {"asked_when_should_call": 2, "did_not_call": 1}
    asked = [row["id"].rpartition("#")[0] for row in pairs.rows if row["rejected_kind"] == "asked_when_should_call"]
    assert asked == [calls[0]["id"], calls[1]["id"]]
    assert pairs.left_out["more than pairs_per_kind"] == 2
    assert balanced(pairs.rows, 9, 0) == pairs.rows


@pytest.mark.parametrize(
    "text",
    ["word " * 20_000, "<tool_call>" * 9_000, "{" * 100_000, '<tool_call>\n{"name": "get_weather", "arguments": {"city": "'
     + "x" * 100_000 + '"}}\n</tool_call>', "\ud800" * 20_000, "<|im_end|>" * 10_000],
    ids=["words", "tags", "braces", "a long call", "half characters", "control tokens"],
)  # fmt: skip
def test_an_answer_of_100_kb_is_judged_and_left_out(template: ChatTemplate, text: str) -> None:
    line = judge(STEPS[0], 0, text, cut=True)
    assert not line["ok"]
    json.dumps(line).encode()
    pairs = make_pairs(STEPS, [line], template, SETTINGS, 1024)
    assert not pairs.rows
    assert sum(pairs.left_out.values()) == 1


def test_a_message_is_what_was_written_or_none(template: ChatTemplate) -> None:
    call = call_message("get_weather", {"city": "Rome"})
    text = written(template, call)
    function = call["tool_calls"][0]["function"]
    assert answer_message(template, text, [function]) == call
    spaced = text.replace('": ', '":')  # read alike, written otherwise: the text itself
    assert answer_message(template, spaced, [function]) == {"role": "assistant", "content": spaced}
    assert answer_message(template, "a<|im_start|>b", []) is None


def test_all_right_is_a_clear_word_and_none_right_is_not_an_error(template: ChatTemplate) -> None:
    right = lines_for({step["id"]: [written(template, step["messages"][-1])] for step in STEPS})
    right = [line | {"ok": True, "error_kind": None} for line in right]
    nothing = make_pairs(STEPS, right, template, SETTINGS, 1024)
    found = report(right, nothing, template, from_data=0)
    assert (found["all_right"], found["all_wrong"], found["mixed"]) == (12, 0, 0)
    with pytest.raises(DataError, match=r"all 12 sampled answers of 12 training steps are right.*mine.samples=0"):
        require_pairs(found)
    require_pairs(report(right, nothing, template, from_data=3))
    wrong = lines_for(
        {step["id"]: ["<tool_call>\n{broken\n</tool_call>", "{}"] for step in STEPS if step["behaviour"] != "direct"}
    )
    pairs = make_pairs(STEPS, wrong, template, SETTINGS, 1024)
    found = report(wrong, pairs, template, from_data=0)
    require_pairs(found)
    assert found["all_right"] == 0
    assert found["kinds"]["unparseable_call"]["pairs"] == 3
    assert {example["kind"] for example in found["examples"]} <= set(found["kinds"])


# The job


def test_the_job_leaves_a_snapshot_of_pairs_and_every_answer(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, tiny_model, monkeypatch, given=3)
    mine.run(job)
    lines = [json.loads(line) for line in (job.output / "mined.jsonl").read_text().splitlines()]
    assert len(lines) == 16
    assert len({(line["id"], line["sample"]) for line in lines}) == 16
    rows = read_snapshot(job.output, "preference")
    found = json.loads((job.output / "mining.json").read_text())
    assert len(rows) == found["pairs"] + 3
    assert found["pairs"] > 0
    assert [row["id"] for row in rows[:3]] == [row["id"] for row in tiny_preference_rows(3)]
    assert all(0 < row["n_tokens"] <= 1024 for row in rows[3:])
    assert found["answers"] == 16 == found["right"] + sum(kind["answers"] for kind in found["kinds"].values())
    progress = [json.loads(line) for line in (job.output / "metrics.jsonl").read_text().splitlines()]
    assert progress[-1]["step"] == progress[-1]["total_steps"] == 16
    assert progress[-1]["eta_seconds"] == 0
    summary = json.loads((job.output / "summary.json").read_text())
    assert (summary["stage"], summary["steps"]) == ("mine", 8)
    assert list(job.checkpoints.iterdir()) == []


def test_a_stopped_job_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_ANSWERS", 3)
    undisturbed = make_job(tmp_path / "a", tiny_model, monkeypatch)
    mine.run(undisturbed)
    job = make_job(tmp_path / "b", tiny_model, monkeypatch)
    batches: list[int] = []
    original = mine.Sampled._keep

    def keep(self: Any, indices: list[int], answers: list[list[int]]) -> None:
        original(self, indices, answers)
        batches.extend(indices)
        if len(batches) == 6:
            job.stop_flag.write_text("")

    monkeypatch.setattr(mine.Sampled, "_keep", keep)
    with pytest.raises(SystemExit, match="143"):
        mine.run(job)
    assert not (job.output / "mined.jsonl").exists()
    job.stop_flag.unlink()
    kept = job.checkpoints / "mined.partial.jsonl"
    whole = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(whole[:-1]) + '{"plan": "cut off by a ki')  # the last batch is torn as well
    mine.run(job)
    assert sorted(set(batches)) == list(range(16))
    assert len(batches) == 6 + 13  # the torn batch again, and what was left
    assert results(job) == results(undisturbed)


def test_mined_pairs_do_not_depend_on_how_many_answers_grow_together(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Decoder, "autocast", lambda self, low: decoding.contextlib.nullcontext())  # float32
    first = make_job(tmp_path / "a", tiny_model, monkeypatch)
    mine.run(first)
    monkeypatch.setattr(decoding, "MAX_ANSWERS", 5)
    second = make_job(tmp_path / "b", tiny_model, monkeypatch)
    mine.run(second)
    assert results(first) == results(second)


def test_dpo_on_mined_pairs_probes_with_the_turns_that_were_ingested(
    tmp_path: Path, tiny_model: Path, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs' own folder has no SFT rows."""
    job = make_job(tmp_path, tiny_model, monkeypatch)
    dataset = job.channel("dataset")
    expected = held_back(job, template).steps
    dataset.rename(dataset.with_name("rows"))
    dataset.mkdir()
    assert held_back(job, template).steps == expected
