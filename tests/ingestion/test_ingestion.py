"""Ingestion as a whole: every row is accounted for, equal input gives equal bytes, and training never sees the test."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ingest_examples import TEMPLATE, base_in, ingest_recipe, quarantined, snapshot_of, write_lines
from tiny import build_tiny_tokenizer, tiny_choice_rows, tiny_preference_rows, tiny_sft_rows, write_tiny_sources

from rightcall.chat.model_folder import FILES as CHAT_FILES
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.rows.snapshots import read_snapshot
from tasks.stages.ingest import ingest_snapshot
from tasks.store.folder_store import Store

FILES = ("sft.parquet", "preference.parquet", "choice.parquet", "quarantine.jsonl", "checks.json")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """24 + 24 + 16 good rows; for SFT also a broken line, 30 copies, a near copy, a leak, a live row and its copy."""
    folder = tmp_path_factory.mktemp("ingested")
    paths = write_tiny_sources(folder / "sources")
    rows = tiny_sft_rows()
    long = copy.deepcopy(rows[3]) | {"id": "long"}
    long["messages"][0]["content"] = " ".join(f"word{number}" for number in range(80))
    near = copy.deepcopy(long)
    near["messages"][0]["content"] += " more"
    leak, live = copy.deepcopy(rows[0]), copy.deepcopy(rows[4])
    leak["messages"][0]["content"] = tiny_choice_rows()[0]["question"].upper()
    live |= {"source": "bfcl:live_simple"}
    live["messages"][0]["content"] += " Now."
    extra = [{**rows[index % 24], "id": f"copy-{index}"} for index in range(30)]
    write_lines(paths["sft"], [*rows, long, near, leak, b'{"id": "broken', *extra, live, {**live, "id": "again"}])
    return snapshot_of(ingest_recipe(paths, tolerance=0.2), folder)


def test_rows_in_are_rows_kept_and_quarantined_and_sampled_out(ingested: tuple[Path, dict[str, Any]]) -> None:
    folder, checks = ingested
    for kind, counts in checks["rows"].items():
        assert counts["in"] == counts["kept"] + counts["quarantined"] + counts["sampled_out"]
        assert counts["kept"] == len(read_snapshot(folder, kind))
    assert sum(counts["quarantined"] for counts in checks["rows"].values()) == len(quarantined(folder))
    assert checks["rows"]["sft"] == {"in": 60, "kept": 25, "quarantined": 35, "sampled_out": 0, "critical": 4}


def test_every_row_in_quarantine_has_its_place_and_all_its_reasons(ingested: tuple[Path, dict[str, Any]]) -> None:
    by_reasons = {}
    for entry in quarantined(ingested[0]):
        by_reasons.setdefault(tuple(entry["reasons"]), []).append(entry)
    assert {reasons: len(entries) for reasons, entries in by_reasons.items()} == {
        ("not_json",): 1, ("leaks_evaluation",): 1, ("live_source_in_training",): 1, ("near_duplicate",): 1,
        ("exact_duplicate",): 30, ("exact_duplicate", "live_source_in_training"): 1,
    }  # fmt: skip
    broken = by_reasons["not_json",][0]
    assert (broken["line"], broken["text"].strip(), broken["size_bytes"]) == (28, '{"id": "broken', 15)
    assert broken["source"] == "sft.jsonl"
    near = by_reasons["near_duplicate",][0]
    assert (near["line"], near["near_duplicate_of_line"]) == (26, 25)
    assert near["record"]["messages"][0]["content"].endswith("word79 more")


def test_checks_tell_reasons_classes_leakage_and_the_keyword_rule(ingested: tuple[Path, dict[str, Any]]) -> None:
    checks = json.loads((ingested[0] / "checks.json").read_text(encoding="utf-8"))
    assert checks == ingested[1]
    assert checks["reasons"]["exact_duplicate"]["count"] == 31
    assert checks["reasons"]["live_source_in_training"] | {"example": ""} == {
        "count": 2, "severity": "critical", "kinds": {"sft": 2}, "example": "",
    }  # fmt: skip
    assert next(iter(checks["reasons"].values()))["severity"] == "critical"
    assert checks["classes"]["choice"] == {"cannot_answer": 4, "direct": 4, "request_for_info": 4, "tool_call": 4}
    assert (checks["leakage"]["found"], checks["leakage"]["remaining"], checks["leakage"]["live_rows_in_training"]) == (
        1,
        0,
        0,
    )
    assert checks["baseline_rule"]["n"] == 16
    acceptable = next(each for each in checks["gx"]["expectations"] if each["name"] == "sft.acceptable")
    assert (acceptable["unexpected"], acceptable["rows"]) == (
        checks["rows"]["sft"]["critical"],
        checks["rows"]["sft"]["in"],
    )
    duplicates = next(each for each in checks["gx"]["expectations"] if each["name"] == "sft.not_near_duplicate")
    assert duplicates["unexpected"] == 1
    assert (ingested[0] / "data_docs" / "index.html").exists()


def test_a_snapshot_holds_canonical_rows_with_their_length_in_tokens(ingested: tuple[Path, dict[str, Any]]) -> None:
    kept = {row["id"]: row for row in read_snapshot(ingested[0], "sft")}
    for row in tiny_sft_rows():
        assert kept[row["id"]] == {**row, "n_tokens": kept[row["id"]]["n_tokens"], "trained": None, "group": ""}
    assert all(row["n_tokens"] > 10 for row in kept.values())
    assert {row["group"] for row in read_snapshot(ingested[0], "choice")} == {""}


def test_equal_input_gives_equal_bytes_wherever_it_lies(tmp_path: Path) -> None:
    digests = []
    for place in ("here", "there"):
        paths = write_tiny_sources(tmp_path / place / "sources")
        folder, _ = snapshot_of(
            ingest_recipe(paths, sft_rows=8, preference_rows=8, evaluation_rows=8), tmp_path, place + ".out"
        )
        digests.append([hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES])
    assert digests[0] == digests[1]


def test_a_sample_is_balanced_and_long_prompts_stay_out_of_it(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = tiny_sft_rows(40)
    rows[0]["messages"][0]["content"] += " word" * 300
    write_lines(paths["sft"], rows)
    recipe = ingest_recipe(paths, sft_rows=12, preference_rows=8, evaluation_rows=4, max_prompt_tokens=600)
    folder, checks = snapshot_of(recipe, tmp_path)
    assert checks["classes"]["sft"] == {"cannot_answer": 3, "direct": 3, "request_for_info": 3, "tool_call": 3}
    assert checks["rows"]["sft"] == {"in": 40, "kept": 12, "quarantined": 0, "sampled_out": 28, "critical": 0}
    assert checks["classes"]["choice"] == {"cannot_answer": 1, "direct": 1, "request_for_info": 1, "tool_call": 1}
    assert rows[0]["id"] not in {row["id"] for row in read_snapshot(folder, "sft")}


def test_a_contrast_group_is_sampled_whole(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = [{**row, "group": f"group-{index // 4}"} for index, row in enumerate(tiny_choice_rows(16))]
    write_lines(paths["choice"], rows)
    folder, _ = snapshot_of(ingest_recipe(paths, evaluation_rows=9), tmp_path)
    groups = [row["group"] for row in read_snapshot(folder, "choice")]
    assert len(groups) == 8
    assert {groups.count(name) for name in groups} == {4}


def test_near_duplicates_stay_in_an_evaluation_and_are_reported(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = tiny_choice_rows(16)
    words = " ".join(f"word{number}" for number in range(80))
    rows[0]["question"], rows[4]["question"] = words, words + " more"
    write_lines(paths["choice"], rows)
    _, checks = snapshot_of(ingest_recipe(paths), tmp_path)
    assert checks["rows"]["choice"]["kept"] == 16
    assert checks["reasons"]["near_duplicate"]["kinds"] == {"choice": 1}


def test_the_same_content_in_another_dialect_is_a_duplicate(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    row = tiny_sft_rows(1)[0]
    other = copy.deepcopy(row)
    function = other["messages"][-1]["tool_calls"][0]["function"]
    function["arguments"] = json.dumps(function["arguments"])
    write_lines(paths["sft"], [*tiny_sft_rows(8), {**other, "id": "x"}])
    folder, _ = snapshot_of(ingest_recipe(paths), tmp_path)
    assert [(entry["line"], entry["reasons"]) for entry in quarantined(folder)] == [(9, ["exact_duplicate"])]


def test_long_numbers_that_floats_confuse_are_different_content(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = [copy.deepcopy(tiny_sft_rows(1)[0]) for _ in range(2)]
    for row, number in zip(rows, (10**22, 10**22 + 1), strict=True):
        row["id"], row["tools"][0]["function"]["parameters"]["properties"]["city"] = str(number), {}
        row["messages"][-1]["tool_calls"][0]["function"]["arguments"]["city"] = number
    write_lines(paths["sft"], [*tiny_sft_rows(8)[1:], *rows])
    _, checks = snapshot_of(ingest_recipe(paths), tmp_path)
    assert "exact_duplicate" not in checks["reasons"]


def test_a_limit_takes_the_first_rows_and_a_folder_is_read_by_name(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    folder = tmp_path / "many"
    folder.mkdir()
    write_lines(folder / "b.jsonl", tiny_sft_rows(16)[8:])
    write_lines(folder / "a.jsonl", tiny_sft_rows(8))
    recipe = ingest_recipe({**paths, "sft": folder})
    limited = recipe.model_dump(mode="json", by_alias=True)
    limited["data"]["sft"][0]["limit"] = 10
    snapshot, checks = snapshot_of(type(recipe).model_validate(limited), tmp_path)
    assert [row["id"] for row in read_snapshot(snapshot, "sft")] == [f"sft-{index}" for index in range(10)]
    assert checks["rows"]["sft"]["in"] == 10


def test_the_stage_is_found_again_after_its_sources_moved_and_not_after_they_changed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    base = base_in(store, tmp_path)
    paths = write_tiny_sources(tmp_path / "sources")
    first = ingest_snapshot.run(ingest_recipe(paths), store=store, base=base)
    assert set(FILES) <= set(store.manifest(first)["files"])
    assert store.manifest(first)["result"]["sft_rows"] == 24
    shutil.move(tmp_path / "sources", tmp_path / "moved")
    moved = {kind: tmp_path / "moved" / path.name for kind, path in paths.items()}
    assert ingest_snapshot.run(ingest_recipe(moved), store=store, base=base) == first
    write_lines(moved["sft"], tiny_sft_rows(20))
    assert ingest_snapshot.run(ingest_recipe(moved), store=store, base=base) != first


def test_rows_depend_on_a_models_tokenizer_template_and_window_and_not_on_its_weights(tmp_path: Path) -> None:
    store, recipe = Store(tmp_path / "store"), ingest_recipe(write_tiny_sources(tmp_path / "sources"))

    def key_of(name: str, **files: str) -> str:
        work = store.workdir("sft", name)
        build_tiny_tokenizer(work / "model")
        for file, content in files.items():
            (work / "model" / file.replace("__", ".")).write_text(content)
        return ingest_snapshot.key(
            recipe, {"base": store.commit("sft", name, "model", work, {"result": {}})}, store=store
        )

    first = key_of("first", model__safetensors="weights")
    assert key_of("second", model__safetensors="other weights", spectrum__json="{}") == first
    for file in ("tokenizer__json", "chat_template__jinja", "config__json", "generation_config__json"):
        assert key_of(file.partition("__")[0], model__safetensors="weights", **{file: "{}"}) != first, file


def test_a_chat_is_the_same_with_nothing_but_the_files_that_count(tmp_path: Path, tiny_model: Path) -> None:
    for name in set(CHAT_FILES) & {path.name for path in tiny_model.iterdir()}:
        shutil.copyfile(tiny_model / name, tmp_path / name)
    whole, bare = (ChatTemplate.load(folder, TEMPLATE) for folder in (tiny_model, tmp_path))
    assert (whole.max_length, whole.eos_ids, whole.pad_id) == (bare.max_length, bare.eos_ids, bare.pad_id)
    messages = tiny_sft_rows(1)[0]["messages"]
    assert whole.encode_prompt(messages, []) == bare.encode_prompt(messages, [])


def test_training_settings_that_do_not_touch_rows_are_not_in_the_key(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    recipe = ingest_recipe(paths)
    changed = recipe.model_dump(mode="json", by_alias=True)
    changed["dpo"]["beta"], changed["sft"]["max_steps"] = 0.7, 99
    longer = recipe.model_dump(mode="json", by_alias=True)
    longer["sft"]["max_length"] = 999
    key = ingest_snapshot.slice(recipe)
    assert ingest_snapshot.slice(type(recipe).model_validate(changed)) == key
    assert ingest_snapshot.slice(type(recipe).model_validate(longer)) != key


def test_a_failed_run_keeps_what_it_found_and_says_where(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    paths = write_tiny_sources(tmp_path / "sources")
    write_lines(paths["sft"], [*tiny_sft_rows(8), *[b"broken"] * 2])
    with pytest.raises(DataError) as caught:
        ingest_snapshot.run(ingest_recipe(paths), store=store, base=base_in(store, tmp_path))
    kept = Path(str(caught.value).rsplit("Every row and its reasons: ", 1)[1])
    assert kept.is_relative_to(tmp_path / "store" / ".failed")
    assert [entry["line"] for entry in quarantined(kept.parent)] == [9, 10]
    assert json.loads((kept.parent / "checks.json").read_text())["rows"]["sft"]["critical"] == 2
    assert (kept.parent / "data_docs" / "index.html").exists()


def test_an_evaluation_alone_can_be_ingested(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    folder, checks = snapshot_of(ingest_recipe({"choice": paths["choice"]}), tmp_path)
    assert checks["rows"]["choice"]["kept"] == 16
    assert read_snapshot(folder, "sft") == []


def test_memory_grows_by_little_with_repeated_rows(tmp_path: Path) -> None:
    """20,000 copies, ids changed, against 24 rows: under 60 MiB more, in a process of each."""
    paths = write_tiny_sources(tmp_path / "sources")
    many = paths["sft"].with_name("many.jsonl")
    rows = tiny_sft_rows(24)
    write_lines(many, ({**rows[index % 24], "id": f"row-{index}"} for index in range(20_000)))
    peaks = []
    for name, path in (("few", paths["sft"]), ("many", many)):
        code = (
            "import resource; from pathlib import Path; from ingest_examples import *\n"
            f"recipe = ingest_recipe({{'sft': Path({str(path)!r}), 'choice': Path({str(paths['choice'])!r})}})\n"
            f"print(snapshot_of(recipe, Path({str(tmp_path)!r}), {name!r})[1]['rows']['sft']['kept'])\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        search = [entry for entry in sys.path if entry]
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {search!r}\n{code}"],
            text=True, capture_output=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        kept, peak = done.stdout.split()[-2:]
        assert kept == "24"
        peaks.append(int(peak) / 1024)
    assert peaks[1] - peaks[0] < 60


def test_preference_rows_are_balanced_over_what_is_rejected(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    write_lines(paths["preference"], tiny_preference_rows(64))
    _, checks = snapshot_of(ingest_recipe(paths, preference_rows=16), tmp_path)
    assert set(checks["classes"]["preference"].values()) == {4}
    calls = {name: n for name, n in checks["classes_in_detail"]["preference"].items() if name.startswith("tool_call/")}
    assert max(calls.values()) - min(calls.values()) <= 1
    assert len(calls) >= 3


def test_only_pairs_with_the_asked_rejected_kinds_are_sampled(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    write_lines(paths["preference"], tiny_preference_rows(64))
    _, checks = snapshot_of(ingest_recipe(paths, rejected_kinds=["tool_call", "cannot_answer"]), tmp_path)
    assert {name.split("/")[1] for name in checks["classes_in_detail"]["preference"]} == {"tool_call", "cannot_answer"}
    with pytest.raises(DataError, match=r"no pair's rejected side is one of data.rejected_kinds \['wrong_type'\]"):
        snapshot_of(ingest_recipe(paths, rejected_kinds=["wrong_type"]), tmp_path, "none")


def test_rows_that_only_call_are_trained_on_where_items_show_what_comes_of_it(tmp_path: Path) -> None:
    """xLAM's rows are all calls."""
    paths = write_tiny_sources(tmp_path / "sources")
    write_lines(paths["sft"], [row for row in tiny_sft_rows(48) if row["behaviour"] == "tool_call"])
    _, checks = snapshot_of(ingest_recipe(paths), tmp_path)
    assert checks["classes"]["sft"] == {"tool_call": 12}
    assert [each for each in checks["warnings"] if "all 12 trained turns of the sft rows are 'tool_call'" in each]
    write_lines(paths["choice"], [row for row in tiny_choice_rows(48) if row["correct_answer"] == "tool_call"])
    with pytest.raises(DataError, match=r"sft rows are 'tool_call'.*name rows or items beside them"):
        snapshot_of(ingest_recipe(paths), tmp_path, "nothing-shown")
