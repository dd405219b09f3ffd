"""Derived rows, from a miniature of BFCL's folder with every kind of case that ``derive`` treats differently."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rightcall.bfcl import calls as bfcl_calls
from rightcall.bfcl import derive, text, training_rows
from rightcall.bfcl import phrases as bfcl_phrases
from rightcall.bfcl.exchange import with_values_exchanged
from rightcall.bfcl.situations import Situation, with_gold
from rightcall.errors import DataError
from rightcall.records import reading as canonical
from rightcall.rows import snapshots, vocabulary
from rightcall.rows.tool_schemas import normalise_tools

CITIES = ["Oslo", "Rome", "Lima", "Cairo", "Quito", "Delhi", "Perth", "Turin"]


def tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    schemas = {key: {"type": kind, "description": f"The {key} of it."} for key, kind in properties.items()}
    parameters = {"type": "dict", "properties": schemas, "required": [k for k in properties if k != "unit"]}
    return {"name": name, "description": description, "parameters": parameters}


HOTEL = tool("hotel.book", "Book a hotel in a city.", city="string", nights="integer", unit="string")
WEATHER = tool("weather.get", "Get the weather forecast.", town="string")
PAINT = tool("paint_mixer", "Mix two paint colours.", red="integer")
LIVE = tool("find_concert", "Finds concerts by their venue.", venue="string")
LIVE2 = tool("open_door", "Opens a garage door.", door="string")


def write(folder: Path, category: str, cases: list[tuple[str, list[dict], list[dict] | None]]) -> None:
    lines, gold = [], []
    for index, (question, tools, truth) in enumerate(cases):
        name = f"{category}_{index}"
        lines.append(json.dumps({"id": name, "question": [[{"role": "user", "content": question}]], "function": tools}))
        gold.append(json.dumps({"id": name, "ground_truth": truth}))
    (folder / f"BFCL_v4_{category}.json").write_text("\n".join(lines) + "\n")
    if cases[0][2] is not None:
        (folder / "possible_answer" / f"BFCL_v4_{category}.json").write_text("\n".join(gold) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bfcl")
    (root / "possible_answer").mkdir()
    hotel = [
        (
            f"Please book a hotel in {city} for {n + 2} nights.",
            [HOTEL],
            [{"hotel.book": {"city": [city, f"{city}, X"], "nights": [n + 2], "unit": ["", "x"]}}],
        )
        for n, city in enumerate(CITIES)
    ]
    leaked = [("Find me a concert at the Arena.", [WEATHER], [{"weather.get": {"town": ["Arena"]}}])]
    weather = [
        (f"What is the weather forecast for {city}?", [WEATHER, PAINT], [{"weather.get": {"town": [city]}}])
        for city in CITIES
    ]
    write(root, "simple_python", hotel + leaked)
    write(root, "multiple", weather)
    write(
        root,
        "parallel",
        [("Book in Oslo and Rome.", [HOTEL], [{"hotel.book": {"city": [c], "nights": [1]}} for c in CITIES[:2]])],
    )
    write(root, "irrelevance", [(f"Translate poem number {i} to Latin.", [PAINT], None) for i in range(6)])
    concerts = [
        (f"Find me a concert at the {v}.", [LIVE], [{"find_concert": {"venue": [v]}}])
        for v in ("Arena", "Dome", "Opera")
    ]
    doors = [
        (f"Open the garage door named '{d}' please.", [LIVE2, LIVE], [{"open_door": {"door": [d]}}])
        for d in ("left", "right")
    ]
    write(root, "live_simple", concerts)
    write(root, "live_multiple", doors)
    write(root, "live_irrelevance", [("Translate my poem into Latin today.", [LIVE], None)])
    return root


@pytest.fixture(scope="module")
def derived(folder: Path) -> derive.Derived:
    return derive.derive(folder, 42)


def call_of(message: dict[str, Any]) -> dict[str, Any]:
    return message["tool_calls"][0]["function"]


def test_the_same_files_and_seed_give_the_same_rows_and_another_seed_gives_others(
    folder: Path, derived: derive.Derived
) -> None:
    assert asdict(derive.derive(folder, 42)) == asdict(derived)
    assert asdict(derive.derive(folder, 43)) != asdict(derived)


def test_every_row_is_canonical_already(derived: derive.Derived) -> None:
    for kind, made in (("sft", derived.sft), ("preference", derived.preference), ("choice", derived.choice)):
        assert made
        for row in made:
            bare = {name: row[name] for name in snapshots.COLUMNS[kind] if name in row}
            assert canonical.to_canonical(row, kind, row["source"], 1) == bare
        assert len({row["id"] for row in made}) == len(made)


def test_live_categories_never_reach_training_and_training_never_reaches_the_items(derived: derive.Derived) -> None:
    assert {row["source"] for row in derived.choice} <= {
        "bfcl:live_simple",
        "bfcl:live_multiple",
        "bfcl:live_irrelevance",
    }
    training = derived.sft + derived.preference
    assert not any("live" in row["source"] for row in training)
    asked = {text.normalise_text(row["question"]) for row in derived.choice}
    prompts = {text.normalise_text(r.get("messages", r.get("prompt"))[0]["content"]) for r in training}
    assert not asked & prompts
    offered = {t["function"]["name"] for row in training for t in row["tools"]}
    assert not offered & {"find_concert", "open_door"}


def test_a_tool_call_row_takes_the_first_accepted_value_and_leaves_optional_arguments_out(
    derived: derive.Derived,
) -> None:
    calls = [call_of(r["messages"][-1]) for r in derived.sft if r["id"] == "bfcl-sft-simple_python_1"]
    assert calls == [{"name": "hotel.book", "arguments": {"city": "Rome", "nights": 3}}]


def test_an_exchanged_row_calls_with_the_values_that_its_question_names_now(derived: derive.Derived) -> None:
    rows = {row["id"].removeprefix("bfcl-sft-"): row for row in derived.sft}
    assert len(derived.exchanged) >= 2 * len(CITIES)
    for row in derived.exchanged:
        name, _, _ = row["id"].removeprefix("bfcl-sft-").partition("-exchanged-")
        before, call = call_of(rows[name]["messages"][-1]), call_of(row["messages"][-1])
        question = row["messages"][0]["content"]
        assert (call["name"], call["arguments"].keys()) == (before["name"], before["arguments"].keys())
        assert call["arguments"] != before["arguments"]
        for parameter, value in call["arguments"].items():
            assert type(value) is type(before["arguments"][parameter])
            assert str(value) in question
        assert row["tools"] == rows[name]["tools"]


@pytest.mark.parametrize(("question", "value"), [
    ("Rome or Rome?", "Rome"), ("Is Romeo there?", "Rome"), ("Give me 12.5 of it.", 12), ("It is -12.", 12), ("5 of them.", 5),
])  # fmt: skip
def test_a_value_that_is_not_named_once_as_a_word_is_not_exchanged(question: str, value: str | int) -> None:
    call = {"name": "f", "arguments": {"x": value}}
    tools = normalise_tools([tool("f", "Does it.", x="string" if isinstance(value, str) else "integer")])
    case = Situation("x", "simple_python", question, tools, "tool_call", call)
    other = Situation("y", "simple_python", "Lima?", tools, "tool_call", {"name": "f", "arguments": {"x": "Lima"}})
    assert [each.id for each in with_values_exchanged([case, other], 1) if each.id.startswith("x")] == []


@pytest.mark.parametrize(("question", "city"), [
    ("A hotel in Roma, please.", "Roma"), ("A hotel in Rome or Roma.", "Rome"), ("A hotel there, please.", "Rome"),
])  # fmt: skip
def test_a_tool_call_row_takes_the_accepted_text_that_stands_in_the_question(question: str, city: str) -> None:
    case = Situation("x", "simple_python", question, normalise_tools([HOTEL]), "cannot_answer")
    called = with_gold(case, {"hotel.book": {"city": ["Rome", "", "Roma"], "nights": [1]}})
    assert called is not None
    assert training_rows.as_asked(called).call == {"name": "hotel.book", "arguments": {"city": city, "nights": 1}}


def test_a_request_for_info_row_lost_a_value_and_asks_for_it(derived: derive.Derived) -> None:
    made = {r["id"]: r["messages"] for r in derived.sft}
    question, answer = made["bfcl-sft-simple_python_1-without-city"]
    assert question["content"] == "Please book a hotel for 3 nights."
    assert "city" in answer["content"]
    assert made["bfcl-sft-simple_python_1-without-nights"][0]["content"] == "Please book a hotel in Rome."


def test_a_refusal_row_offers_no_tool_that_fits(derived: derive.Derived) -> None:
    refusals = [r for r in derived.sft if r["behaviour"] == "cannot_answer"]
    assert any(not r["tools"] for r in refusals)
    for row in refusals:
        if "weather" in row["messages"][0]["content"]:
            assert "weather.get" not in {t["function"]["name"] for t in row["tools"]}


def test_parallel_cases_become_rows_with_several_calls(derived: derive.Derived) -> None:
    (row,) = [r for r in derived.sft if r["source"] == "bfcl:parallel"]
    assert [c["function"]["arguments"]["city"] for c in row["messages"][-1]["tool_calls"]] == ["Oslo", "Rome"]


def test_pairs_are_balanced_and_most_contrast_behaviours(derived: derive.Derived) -> None:
    counts = Counter(r["behaviour"] for r in derived.preference)
    assert max(counts.values()) - min(counts.values()) <= 4
    for behaviour, total in counts.items():
        kinds = Counter(r["rejected_kind"] for r in derived.preference if r["behaviour"] == behaviour)
        contrast = sum(n for kind, n in kinds.items() if kind in vocabulary.BEHAVIOURS or behaviour != "tool_call")
        assert contrast >= 0.65 * total
        assert behaviour not in kinds


def test_rejected_calls_are_wrong_in_the_way_that_their_kind_says(derived: derive.Derived) -> None:
    for row in derived.preference:
        if row["behaviour"] != "tool_call" or row["rejected_kind"] in vocabulary.BEHAVIOURS:
            continue
        gold, wrong = call_of(row["chosen"]), call_of(row["rejected"])
        schemas = {t["function"]["name"]: t["function"]["parameters"] for t in row["tools"]}
        match row["rejected_kind"]:
            case "hallucinated_tool":
                assert wrong["name"] not in schemas
            case "wrong_tool":
                assert wrong["name"] in schemas
                assert wrong["name"] != gold["name"]
            case "wrong_value":
                assert bfcl_calls.satisfies(wrong["arguments"], schemas[gold["name"]])
                assert wrong["arguments"] != gold["arguments"]
            case "missing_argument":
                assert len(wrong["arguments"]) == len(gold["arguments"]) - 1
            case "wrong_type" | "invented_argument":
                assert not bfcl_calls.satisfies(wrong["arguments"], schemas[gold["name"]])


def test_an_invented_value_of_a_missing_argument_is_of_the_right_type_and_not_the_one_taken_out(
    derived: derive.Derived,
) -> None:
    pairs = [
        r for r in derived.preference if r["behaviour"] == "request_for_info" and r["rejected_kind"] == "tool_call"
    ]
    assert pairs
    for row in pairs:
        wrong = call_of(row["rejected"])
        schema = next(t["function"]["parameters"] for t in row["tools"] if t["function"]["name"] == wrong["name"])
        assert bfcl_calls.satisfies(wrong["arguments"], schema)


def test_items_come_in_groups_of_one_tool_set_with_unlike_gold_answers(derived: derive.Derived) -> None:
    groups: dict[str, list[dict]] = {}
    for row in derived.choice:
        assert all(row["answers"][b] for b in vocabulary.BEHAVIOURS)
        groups.setdefault(row["group"], []).append(row)
    assert any(
        {r["correct_answer"] for r in g} == {"tool_call", "request_for_info", "cannot_answer"} for g in groups.values()
    )
    concert = [r for g in groups.values() for r in g if r["question"] == "Find me a concert."]
    assert {r["correct_answer"] for r in concert} == {"request_for_info"}


def test_items_without_tools_are_refusals_whose_call_is_a_hallucination(derived: derive.Derived) -> None:
    bare = [row for row in derived.choice if not row["tools"]]
    assert bare
    for row in bare:
        assert row["correct_answer"] == "cannot_answer"
        assert json.loads(row["answers"]["tool_call"])["name"]


def test_training_and_evaluation_share_no_wording() -> None:
    training, evaluation = bfcl_phrases.TRAINING, bfcl_phrases.EVALUATION
    for name in ("request_for_info", "cannot_answer"):
        one, other = set(getattr(training, name)), set(getattr(evaluation, name))
        assert min(len(one), len(other)) >= 8
        assert not one & other
    assert training.direct.keys() == evaluation.direct.keys()
    assert not {t for ts in training.direct.values() for t in ts} & {t for ts in evaluation.direct.values() for t in ts}


@pytest.mark.parametrize("phrases", [bfcl_phrases.TRAINING, bfcl_phrases.EVALUATION])
def test_neither_an_apology_nor_a_question_mark_nor_length_names_a_behaviour(phrases: bfcl_phrases.Phrases) -> None:
    for templates in (phrases.request_for_info, phrases.cannot_answer):
        apologies = sum(any(w in t.lower() for w in ("sorry", "apolog", "afraid", "regret")) for t in templates)
        questions = sum("?" in t for t in templates)
        assert 0.1 < apologies / len(templates) < 0.6
        assert 0.1 < questions / len(templates) < 0.9
        assert min(map(len, templates)) < 30
        assert max(map(len, templates)) > 60


@pytest.mark.parametrize(
    ("question", "value", "rest"),
    [
        ("What is the weather in Paris today?", "Paris", "What is the weather today?"),
        ("What is the weather in Paris, France?", "Paris, France", "What is the weather?"),
        ("Find a route to Rome.", "Rome", "Find a route."),
        ("Show the cast of the movie 'Titanic', please.", "Titanic", "Show the cast, please."),
        ("Compute interest for a principal of $5,000 at 5%.", 5000, "Compute interest at 5%."),
        ("Compute interest at a rate of 5% on my loan.", 0.05, "Compute interest on my loan."),
        ("A base of 10 and a height of 5.", 10, None),  # "a base and a height of 5" would still tell it
        ("Find flats in London and Paris.", "Paris", None),  # a list
        ("London hotels in London, please.", "London", None),  # still told
        ("Play Thriller", "Thriller", None),  # no preposition: the rest would be no request
        ("Book cheap London hotels.", "London", None),
    ],
)
def test_a_value_is_cut_out_only_where_the_rest_reads_on_and_does_not_tell_it(
    question: str, value: object, rest: str | None
) -> None:
    assert text.without_value(question, value, []) == rest


def test_a_missing_file_names_it_and_says_which_folder_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^missing_source: .*BFCL_v4_live_simple\.json' is not there; give the folder"):
        derive.derive(tmp_path, 42)
