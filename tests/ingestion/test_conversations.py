"""Logged conversations: what becomes a row, what is refused and why, and that nobody stands on both sides."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conversation_examples import conversation, conversation_recipe, logged, result, user, write_log
from ingest_examples import TEMPLATE, quarantined, snapshot_of, write_lines
from tiny import TOOLS, build_tiny_tokenizer, call_message, text_message

from data_checks.contradictions import Contradictions
from data_checks.held_out import HeldOutConversations
from data_checks.sampling import balanced_whole_rows, whole_groups
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.recipe.sections import ConversationSource
from rightcall.records.conversation_records import Named, to_conversation
from rightcall.rows.conversations import steps_of, without_front
from rightcall.rows.secrets import redact, redact_record
from rightcall.rows.snapshots import read_snapshot
from rightcall.toolcalls.words import guess_behaviour
from tasks.data.conversations import named_once, side_of
from tasks.data.described import describe
from tasks.data.preview import marked, preview_rows
from tasks.stages.ingest import ingest_snapshot

Row = dict[str, Any]
ASKED = [user("Weather?"), text_message("In which city?"), user("Oslo")]


def canonical(record: Row, named: Named | None = None) -> Row:
    return to_conversation(record, "log.jsonl", 1, named or Named(), guess_behaviour)


def refusal(record: Row, named: Named | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        canonical(record, named)
    return caught.value


def said(*messages: Row, **fields: Any) -> Row:
    return {"id": "c", "tools": TOOLS, "messages": list(messages), **fields}


def stopped(recipe: Any, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        snapshot_of(recipe, folder)
    return str(caught.value)


def test_a_log_becomes_training_rows_and_steps_of_other_groups(tmp_path: Path) -> None:
    folder, checks = snapshot_of(conversation_recipe(write_log(tmp_path, logged(40))), tmp_path)
    sft, steps = read_snapshot(folder, "sft"), read_snapshot(folder, "step")
    assert quarantined(folder) == []
    assert checks["rows"]["conversation"] == {
        "in": 40, "kept": 40, "quarantined": 0, "sampled_out": 0, "critical": 0,
    }  # fmt: skip
    assert {row["group"] for row in sft}.isdisjoint(row["group"] for row in steps)
    assert len(sft) + len({step["conversation"] for step in steps}) == 40
    for row in sft:
        assert row["trained"] == [[i, b] for i, b in row["trained"] if row["messages"][i]["role"] == "assistant"]
        assert len(row["trained"]) == sum(message["role"] == "assistant" for message in row["messages"])
    assert all(step["messages"][-1]["role"] == "assistant" for step in steps)
    assert sum(checks["classes"]["step"].values()) == len(steps)


@pytest.mark.parametrize(
    ("messages", "reason", "part"),
    [
        ([], "bad_content", "at least one message"),
        ([user("Hello?")], "no_assistant_turn", "none is the assistant's answer"),
        ([text_message("Hello!"), user("Hi")], "no_assistant_turn", "of 2 messages"),
        ([*ASKED, result("cold"), text_message("Cold.")], "result_without_call", "message 4 is a tool's result"),
        (
            [*ASKED, call_message("get_weather", {"city": "Oslo"}), result("1", "other"), text_message("1.")],
            "unknown_call_id", "'other', which answers nothing: open is ['call_0']",
        ),
        (
            [*ASKED, call_message("get_weather", {"city": "Oslo"}), result("1"), result("1"), text_message("1.")],
            "unknown_call_id", "every call has its result already",
        ),
        (
            [*ASKED, call_message("get_weather", {"city": "Oslo"}), user("And?"), text_message("1.")],
            "call_not_answered", "message 5 is the user's, but the call 'call_0' has no result yet",
        ),
        ([*ASKED, text_message("One."), text_message("Two.")], "two_assistant_turns", "messages 4 and 5"),
        ([user("A"), user("B"), text_message("C.")], "roles_do_not_alternate", "follows the user's"),
        (
            [*ASKED, {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": "{city"}}]}],
            "bad_arguments", "is not JSON",
        ),
        ([*ASKED, text_message("One.") | {"behaviour": "tool_call"}], "behaviour_contradicts_answer", "no call, but 'One.'"),
        ([*ASKED, text_message("One.") | {"behaviour": "chat"}], "bad_behaviour", "one of direct"),
    ],
)  # fmt: skip
def test_a_conversation_that_cannot_be_followed_is_refused_with_its_reason(
    messages: list[Row], reason: str, part: str
) -> None:
    err = refusal(said(*messages))
    assert err.reason == reason
    assert part in str(err)
    assert str(err).endswith("(line 1 of 'log.jsonl')")


def test_what_follows_the_last_assistant_turn_is_left_out_and_counted() -> None:
    named = Named()
    row = canonical(said(*ASKED, text_message("Cold."), user("Thanks, bye.")), named)
    assert (row["messages"][-1], named.endings) == (text_message("Cold."), 1)
    call = call_message("get_weather", {"city": "Oslo"})
    assert canonical(said(*ASKED, call, result("1")), named)["messages"][-1]["tool_calls"][0]["id"] == "call_0"
    assert named.endings == 2


def test_every_assistant_turn_has_a_behaviour_and_a_greeting_has_none() -> None:
    call = call_message("get_weather", {"city": "Oslo"})
    labelled = text_message("I cannot help with that.") | {"behaviour": "direct"}
    named = Named()
    row = canonical(
        said(text_message("Hi!"), *ASKED, call, result("1"), text_message("1 degree."), user("x"), labelled), named
    )
    assert row["trained"] == [[2, "request_for_info"], [4, "tool_call"], [6, "direct"], [8, "direct"]]
    assert named.greetings == 1
    assert [len(step["messages"]) for step in steps_of(row)] == [3, 5, 7, 9]


def test_tools_and_policy_are_named_once_and_a_record_that_differs_is_refused() -> None:
    named = Named(TOOLS, "Be kind.")
    row = canonical(said(*ASKED, text_message("Cold."), tools=TOOLS[::-1]), named)
    assert (row["messages"][0], row["tools"]) == ({"role": "system", "content": "Be kind."}, TOOLS)
    assert row["trained"] == [[2, "request_for_info"], [4, "direct"]]
    assert canonical({"messages": row["messages"]}, named)["tools"] == TOOLS
    other = copy.deepcopy(TOOLS[:2])
    other[0]["function"]["parameters"]["required"] = []
    err = refusal(said(*ASKED, text_message("Cold."), tools=other), named)
    assert err.reason == "tools_differ"
    assert "it lacks 'convert_money'; 'get_weather': " in str(err)
    err = refusal(said({"role": "system", "content": "Be rude."}, *ASKED, text_message("Cold.")), named)
    assert (err.reason, "'Be kind.' became 'Be rude.'" in str(err)) == ("system_differs", True)


def test_a_tool_that_changes_its_schema_within_a_source_is_refused_from_then_on() -> None:
    named, other = Named(), copy.deepcopy(TOOLS)
    other[1]["function"]["parameters"]["properties"]["people"] = {"type": "string"}
    canonical(said(*ASKED, text_message("Cold.")), named)
    canonical(said(*ASKED, text_message("Cold."), tools=TOOLS[:1]), named)
    err = refusal(said(*ASKED, text_message("Cold."), tools=other), named)
    assert err.reason == "tool_schema_changed"
    assert "the tool 'book_table'" in str(err)


def test_files_with_tools_and_policy_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[{"name": 3}]')
    (tmp_path / "policy.md").write_text(" ")
    for name, file, part in (
        ("tools", "gone.json", "does not exist"), ("tools", "tools.json", "has no name"),
        ("tools", "policy.md", "are not JSON"), ("system", "policy.md", "is empty"), ("system", "", "is a folder"),
    ):  # fmt: skip
        source = ConversationSource(uri="x", **{name: str(tmp_path / file)})
        with pytest.raises(DataError, match=part):
            named_once(source, None, tmp_path / "cache", Counter())


SECRETS = {
    "aws_key": "AKIAIOSFODNN7EXAMPLE",
    "api_key": "sk-abcdefghijklmnopqrstuvwx123456",
    "bearer_token": "Authorization: Bearer abc123def456ghi789jkl0",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.abcdefghijklmnop",
    "url_password": "postgres://admin:s3cr3t-pw@db.example.com/x",
    "card_number": "4111 1111 1111 1111",
    "private_key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----",
    "password": '{"password": "hunter2hunter2"}',
    "aws_secret": "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_becomes_a_typed_placeholder_wherever_it_stands(kind: str) -> None:
    secret = SECRETS[kind]
    for text in (f"Here: {secret} ok", json.dumps({"found": secret})):
        found: Counter[str] = Counter()
        clean = redact({"content": [text]}, found)["content"][0]
        assert found == {kind: 1}, clean
        assert f"[REDACTED:{kind}]" in clean
        assert redact(clean, again := Counter()) == clean
        assert not again
    assert "admin" in redact(SECRETS["url_password"], Counter())


@pytest.mark.parametrize(
    ("content", "clean"),
    [
        ({"password": "correct horse battery"}, {"password": "[REDACTED:password]"}),
        ({"userPassword": "hunter22"}, {"userPassword": "[REDACTED:password]"}),
        ({"password": "", "reset_password_url": "/x"}, {"password": "", "reset_password_url": "/x"}),
        ('{"password": "correct horse battery"}', '{"password": "[REDACTED:password]"}'),
        ("DB_PASSWORD=hunter22 go", "DB_PASSWORD=[REDACTED:password] go"),
        ("MY_API_KEY=abcdef1234567890", "MY_API_KEY=[REDACTED:api_key]"),
        ({"arguments": '{"card": 4111111111111111}'}, {"arguments": '{"card": "[REDACTED:card_number]"}'}),
        ({"arguments": '{"city":"Zürich", "n": 1.50}'}, {"arguments": '{"city":"Zürich", "n": 1.50}'}),
    ],
)
def test_a_secret_is_redacted_whole_and_arguments_stay_json(content: Any, clean: Any) -> None:
    found: Counter[str] = Counter()
    assert redact(content, found) == clean
    assert found.total() == (content != clean)


def test_what_an_agents_arguments_are_made_of_is_no_secret() -> None:
    record = {
        "messages": [user(text) for text in (
            "mail ada.lovelace7@example.com, zip 19031-1234, order #W6067464, item 8917609800, tracking 674931187716",
            "credit_card_4190576, card 1234567890123456, phone +1 415 555 0132, at 2026-11-25T21:02:43Z, user 12345678901234",
            "my password is not known, the bearer of this, secret: no, token ring, https://example.com/a:b@c",
        )],
        "count": 4111, "price": 195.59,
    }  # fmt: skip
    found: Counter[str] = Counter()
    assert redact_record(record, found) == record
    assert not found


def test_secrets_reach_neither_rows_nor_quarantine_and_tools_stay_as_they_are(tmp_path: Path) -> None:
    records: list[Row | bytes] = [*logged(40)]
    leaking, tools = conversation(50), copy.deepcopy(TOOLS)
    tools[0]["function"]["description"] = "Needs a key such as AKIAIOSFODNN7EXAMPLE."
    for record in (records[0], leaking):
        assert isinstance(record, dict)
        record["messages"][0]["content"] += f" key {SECRETS['aws_key']}"
        record["note"] = SECRETS["card_number"]
    leaking["messages"][3]["tool_calls"][0]["function"]["arguments"] = "{broken"
    records += [leaking, b'{"id": "x", "messages": "' + SECRETS["api_key"].encode(), *[
        conversation(number) | {"tools": tools} for number in ()
    ]]  # fmt: skip
    folder, checks = snapshot_of(conversation_recipe(write_log(tmp_path, records), tolerance=0.2), tmp_path)
    assert checks["conversations"]["redacted"] == {"api_key": 1, "aws_key": 2, "card_number": 2}
    stored = (folder / "quarantine.jsonl").read_text() + json.dumps(checks)
    stored += json.dumps(read_snapshot(folder, "sft") + read_snapshot(folder, "step"))
    assert not [kind for kind, secret in SECRETS.items() if secret in stored]
    assert "[REDACTED:aws_key]" in stored
    assert redact_record({"tools": tools, "messages": []}, Counter())["tools"] is tools


def test_a_group_stays_on_its_side_when_others_come() -> None:
    recipe = conversation_recipe("x")
    source = recipe.data.conversations[0]
    sides = {str(number): side_of(str(number), source, recipe.data) for number in range(2000)}
    assert 0.16 < Counter(sides.values())["evaluation"] / 2000 < 0.24
    assert side_of("7", source, conversation_recipe("y", evaluation_share=0.2).data) == sides["7"]
    held = ConversationSource(uri="x", use="evaluation")
    assert {side_of(name, held, recipe.data) for name in sides} == {"evaluation"}


def test_one_group_with_most_steps_and_an_empty_side_stop_the_flow(tmp_path: Path) -> None:
    most = [conversation(n) | {"user_id": "u0"} for n in range(18)] + [conversation(20), conversation(30)]
    message = stopped(conversation_recipe(write_log(tmp_path, most)), tmp_path)
    assert "the group 'u0' holds 54 of 60 steps (90%)" in message
    (tmp_path / "snapshot").rename(tmp_path / "first")
    few = conversation_recipe(write_log(tmp_path, logged(6)), evaluation_share=0.001)
    message = stopped(few, tmp_path)
    assert "all 3 groups fall on the training side, none is left for evaluation" in message
    (tmp_path / "snapshot").rename(tmp_path / "second")
    message = stopped(conversation_recipe(write_log(tmp_path, logged(6)), evaluation_share=0.999), tmp_path)
    assert "none is left for training" in message
    (tmp_path / "snapshot").rename(tmp_path / "third")
    message = stopped(conversation_recipe(write_log(tmp_path, logged(6)), group_by="customer"), tmp_path)
    assert "data.group_by is 'customer', which no record of" in message
    assert "['id', 'user_id', 'messages', 'tools']" in message


def test_an_empty_log_stops_the_flow(tmp_path: Path) -> None:
    assert "no row was read for conversation from" in stopped(conversation_recipe(write_log(tmp_path, [])), tmp_path)


def test_a_group_or_a_conversation_of_the_evaluation_is_not_trained_on(tmp_path: Path) -> None:
    train = write_log(tmp_path, [*logged(40), conversation(100) | {"user_id": "u50"}])
    again = conversation(7) | {"id": "again", "user_id": "other"}
    test = write_log(tmp_path, [*(conversation(n) for n in range(100, 104)), again], "test.jsonl")
    recipe = conversation_recipe(
        {"uri": str(train), "use": "train"}, {"uri": str(test), "use": "evaluation"}, tolerance=0.2
    )
    folder, checks = snapshot_of(recipe, tmp_path)
    left_out = {entry["record"]["id"]: entry for entry in quarantined(folder)}
    assert {name: entry["reasons"] for name, entry in left_out.items()} == {
        "c7": ["leaks_evaluation"], "c100": ["leaks_evaluation"],
    }  # fmt: skip
    assert "its group 'u50' is on the evaluation side too" in left_out["c100"]["detail"]
    assert "it repeats 'again' of the evaluation side" in left_out["c7"]["detail"]
    assert checks["rows"]["conversation"]["kept"] == 44
    assert checks["leakage"]["found"] == 2


def test_a_held_out_conversation_is_found_again_with_a_word_more_and_not_with_another_call() -> None:
    held_out = HeldOutConversations(0.9)
    long = " ".join(f"word{number}" for number in range(80))
    first = canonical(
        said(user(long), call_message("get_weather", {"city": "Oslo"}), result("1"), text_message("One."))
    )
    held_out.add([first | {"side": "evaluation"}])
    near, other = copy.deepcopy(first), copy.deepcopy(first)
    near["messages"][0]["content"] += " more"
    other["messages"][1]["tool_calls"][0]["function"]["arguments"]["city"] = "Rome"
    assert held_out.repeated([{**row, "side": "train"} for row in (first, near, other)]) == ["c", "c", None]
    nobody_asks = {"messages": [text_message("One.")]}  # a broken row is looked up too, before its own rule refuses it
    assert held_out.repeated([first | nobody_asks]) == [None]


def test_last_gives_a_row_a_turn_and_all_a_row_a_conversation(tmp_path: Path) -> None:
    folder, checks = snapshot_of(conversation_recipe(write_log(tmp_path, logged(40)), train_on="last"), tmp_path)
    rows = read_snapshot(folder, "sft")
    conversations = checks["conversations"]["sides"]["train"]["conversations"]
    assert checks["rows"]["sft"]["in"] == 3 * conversations
    assert all(row["trained"] == [[len(row["messages"]) - 1, row["behaviour"]]] for row in rows)
    assert {row["id"].split("/")[1] for row in rows} == {"1", "3", "5"}


def test_a_long_conversation_is_refused_with_its_length_or_cut_at_the_front(tmp_path: Path) -> None:
    """28 turns more: over 600 tokens, which the others do not reach."""
    records = logged(40)
    long = [user(f"One more thing {n}?") if n % 2 else text_message(f"I see, {n}.") for n in range(1, 41)]
    records[3]["messages"] += [*long[:-1], text_message("All done now.")][:40]
    log = write_log(tmp_path, records)
    folder, checks = snapshot_of(conversation_recipe(log, max_length=600, tolerance=0.2), tmp_path, "refused")
    (entry,) = quarantined(folder)
    assert entry["reasons"] == ["too_long"]
    assert "tokens, the limit is 600 (sft.max_length)" in entry["detail"]
    lengths = checks["conversations"]["lengths"]["log.jsonl"]
    assert (lengths["n"], lengths["longest"] > 600 > lengths["p50"]) == (40, True)
    folder, checks = snapshot_of(conversation_recipe(log, max_length=600, too_long="cut_front"), tmp_path, "cut")
    assert quarantined(folder) == []
    assert checks["conversations"]["cut"]["train"]["conversations"] == 1
    row = next(row for row in read_snapshot(folder, "sft") if row["id"] == "c3")
    assert row["n_tokens"] <= 600
    assert (row["messages"][0]["role"], row["messages"][-1]["content"]) == ("user", "All done now.")
    assert all(row["messages"][index]["role"] == "assistant" for index, _ in row["trained"])


def test_turn_by_turn_a_long_conversation_loses_only_the_turns_that_do_not_fit_and_these_with_their_length(
    tmp_path: Path,
) -> None:
    records = logged(40)
    records[3]["messages"] += [
        message for n in range(20) for message in (user(f"One more thing {n}?"), text_message(f"I see, {n}."))
    ]
    log = write_log(tmp_path, records)
    folder, checks = snapshot_of(conversation_recipe(log, max_length=600, train_on="last", tolerance=0.2), tmp_path)
    rows = [row for row in read_snapshot(folder, "sft") if row["id"].startswith("c3/")]
    refused = quarantined(folder)
    assert len(rows) + len(refused) == 3 + 20
    assert rows
    assert {(entry["kind"], *entry["reasons"]) for entry in refused} == {("sft", "too_long")}
    assert max(row["n_tokens"] for row in rows) <= 600
    lengths = [int(entry["detail"].split()[0].replace(",", "")) for entry in refused]
    assert lengths == sorted(lengths)
    assert lengths[0] > 600
    assert checks["rows"]["sft"]["in"] == checks["rows"]["sft"]["kept"] + len(refused)


def test_the_front_is_left_out_whole_and_what_is_trained_moves_along() -> None:
    row = canonical(
        said({"role": "system", "content": "S"}, *ASKED, text_message("Cold."), user("x"), text_message("y"))
    )
    shorter = without_front(row, 3)
    assert [message["content"] for message in shorter["messages"]] == ["S", "Oslo", "Cold.", "x", "y"]
    assert [index for index, _ in shorter["trained"]] == [4]  # what "Oslo" answers is gone


def test_steps_are_sampled_as_whole_conversations(tmp_path: Path) -> None:
    folder, _ = snapshot_of(conversation_recipe(write_log(tmp_path, logged(80)), step_rows=10), tmp_path)
    steps = read_snapshot(folder, "step")
    assert len(steps) == 12
    assert set(Counter(step["conversation"] for step in steps).values()) == {3}
    assert whole_groups(["a", "b", "b", "c"], 2, 1) in ([1, 2], [0, 1, 2], [0, 3], [1, 2, 3])


def test_whole_rows_are_chosen_so_that_what_they_train_is_balanced() -> None:
    """Half of the rows have calls only: of ten, those are taken that even them out."""
    import numpy as np

    taught = np.array([[0, 9, 0, 0]] * 30 + [[3, 3, 3, 3]] * 30)
    chosen = balanced_whole_rows(taught, 10, 1)
    assert chosen == balanced_whole_rows(taught, 10, 1)
    assert sum(index < 30 for index in chosen) <= 1


def test_the_same_question_with_another_call_is_a_contradiction_and_another_wording_is_none() -> None:
    rome, oslo = (call_message("get_weather", {"city": city}) for city in ("Rome", "Oslo"))
    rows = [
        canonical(said(*ASKED, answer, tools=tools))
        for answer, tools in (
            (oslo, TOOLS), (rome, TOOLS), (text_message("No."), TOOLS[1:]), (text_message("Sorry, no."), TOOLS[1:]),
        )
    ]  # fmt: skip
    found = Contradictions("sft")
    found.add(rows)
    assert {number: each.other for number, each in found.find().items()} == {0: 1, 1: 0}


def test_a_contradiction_is_told_with_both_answers_and_stays(tmp_path: Path) -> None:
    records = logged(40)
    for number in (4, 5):
        records[number]["messages"][:3] = copy.deepcopy(records[4]["messages"][:3])
        records[number] |= {"user_id": "same"}
    folder, checks = snapshot_of(conversation_recipe(write_log(tmp_path, records)), tmp_path)
    assert quarantined(folder) == []
    assert set(checks["reasons"]) == {"contradiction"}
    (warning,) = checks["warnings"]
    for part in ("2 of ", "get_weather", "against", "They are kept"):
        assert part in warning
    text = describe(checks, "/here")
    for part in ("contradiction (warning)", "/here/quarantine.jsonl", "held out for evaluation", "tool_call"):
        assert part in text


def test_a_preview_marks_what_is_trained_and_nothing_else(tmp_path: Path) -> None:
    folder, _ = snapshot_of(conversation_recipe(write_log(tmp_path, logged(40))), tmp_path)
    template = ChatTemplate.load(build_tiny_tokenizer(tmp_path / "for_preview"), TEMPLATE)
    text = preview_rows(template, folder, colours=False)
    assert text.count("── c") == 3
    assert "⟦In which city?<|im_end|>⟧" in text
    row = read_snapshot(folder, "sft")[0]
    last = marked(template, row | {"trained": row["trained"][-1:]}, ("⟦", "⟧"))
    assert last.count("⟦") == 1
    assert f"⟦{row['messages'][-1]['content']}<|im_end|>⟧\n" in last


def test_a_rule_that_takes_much_of_a_source_is_a_warning(tmp_path: Path) -> None:
    records: list[Row | bytes] = [*logged(40), *(conversation(n) | {"messages": [user("?")]} for n in range(50, 54))]
    _, checks = snapshot_of(conversation_recipe(write_log(tmp_path, records), tolerance=0.2), tmp_path)
    (warning,) = checks["warnings"]
    assert "4 of 44 conversation rows of 'log.jsonl' (9.1%): no_assistant_turn" in warning


def test_rows_of_one_behaviour_are_told_by_their_trained_turns(tmp_path: Path) -> None:
    calls = [
        {
            "id": f"c{n}",
            "messages": [user(f"Weather {n}?"), call_message("get_weather", {"city": str(n)})],
            "tools": TOOLS,
        }
        for n in range(40)
    ]
    message = stopped(conversation_recipe(write_lines(tmp_path / "log.jsonl", calls), group_by=None), tmp_path)
    assert "trained turns of" in message
    assert "sft rows are 'tool_call': there is no decision to learn or measure" in message
    assert "under data.conversations" not in message  # they are there


def test_the_key_takes_tools_and_policy_by_content_and_not_by_place(tmp_path: Path) -> None:
    slices = []
    for place, policy in (("here", "Be kind."), ("there", "Be kind."), ("else", "Be rude.")):
        folder = tmp_path / place
        source = {"uri": str(write_log(folder, logged(4)))}
        for name, text in (("tools", json.dumps(TOOLS)), ("system", policy)):
            (folder / name).write_text(text)
            source[name] = str(folder / name)
        slices.append(ingest_snapshot.slice(conversation_recipe(source)))
    assert slices[0] == slices[1] != slices[2]
    assert ingest_snapshot.slice(conversation_recipe(source, train_on="last")) != slices[2]


def test_conversations_that_open_alike_are_no_leak(tmp_path: Path) -> None:
    hello = [user("Hi there"), text_message("Hello! How can I help you today?")]
    records = [each | {"messages": [*hello, *each["messages"]]} for each in logged(40)]
    short = conversation(90) | {"messages": hello}
    for train_on in ("last", "all"):
        recipe = conversation_recipe(write_log(tmp_path, [*records, short]), train_on=train_on)
        folder, checks = snapshot_of(recipe, tmp_path, train_on)
        assert "leaks_evaluation" not in checks["reasons"]
        assert {row["group"] for row in read_snapshot(folder, "sft")}.isdisjoint(
            step["group"] for step in read_snapshot(folder, "step")
        )


@pytest.mark.parametrize("threshold", [0.9, None])
def test_a_row_of_another_source_is_not_a_held_out_step(threshold: float | None, tmp_path: Path) -> None:
    log = write_log(tmp_path, logged(40))
    first, _ = snapshot_of(conversation_recipe(log), tmp_path, "first")
    steps = read_snapshot(first, "step")
    for index, step in enumerate(steps):  # under another policy and other ids it is the same all the same
        step |= {"id": f"row{index}", "messages": [{"role": "system", "content": "Be brief."}, *step["messages"]]}
    fresh = [conversation(number) | {"id": f"new{number}", "behaviour": "direct"} for number in range(60, 66)]
    names = ("id", "behaviour", "messages", "tools")
    rows = write_lines(tmp_path / "sft.jsonl", [{name: row[name] for name in names} for row in [*steps, *fresh]])
    pairs = write_lines(tmp_path / "pairs.jsonl", [
        {"id": row["id"], "tools": row["tools"], "prompt": row["messages"][:-1], "chosen": row["messages"][-1], "rejected": "No."}
        for row in steps[:2]
    ])  # fmt: skip
    settings: Row = {"tolerance": 1.0, "near_duplicate_threshold": threshold, "sft": [{"uri": str(rows)}]}
    recipe = conversation_recipe(log, preference=[{"uri": str(pairs)}], **settings)
    assert "none of 2 rows is left for preference" in stopped(recipe, tmp_path)
    folder, _ = snapshot_of(conversation_recipe(log, **settings), tmp_path, "second")
    leaked = {entry["record"]["id"] for entry in quarantined(folder) if "leaks_evaluation" in entry["reasons"]}
    assert leaked == {step["id"] for step in steps}
    assert {row["id"] for row in read_snapshot(folder, "sft")} >= {each["id"] for each in fresh}
