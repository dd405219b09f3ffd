"""Rows: every line is either one canonical row or one error that starts with its reason."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from snapshot_writer import write_rows

from rightcall.errors import DataError
from rightcall.records import reading as canonical
from rightcall.rows import lines, snapshots, tool_schemas, vocabulary

WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {
        "type": "dict",
        "required": ["city"],
        "properties": {
            "city": {"type": "str", "description": "City"},
            "days": {"type": "int", "enum": ["1", "2"], "default": 1},
            "unit": {"type": "str, optional", "required": True},
        },
    },
}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}],
}


def parameters(schema: object, name: str = "f") -> dict:
    return tool_schemas.normalise_tools([{"name": name, "parameters": schema}])[0]["function"]["parameters"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": "\xff"}', "not_utf8"),
        (b'{"a": "\\ud800"}', "not_utf8"),
        (b'{"messages": [{"role": "us', "not_json"),
        (b"", "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b'{"a": -Infinity}', "not_json"),
        (b"[1, 2]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
        (b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", "too_deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not_json"),
    ],
)
def test_a_broken_line_is_an_error_that_starts_with_its_reason(line: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=f"^{reason}: "):
        lines.parse_line(line)


def test_a_line_of_fifty_megabytes_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(DataError, match=r"^line_too_long: 50000011 bytes, the limit is 10000000"):
        lines.parse_line(b'{"text": "' + b"x" * 49_999_999 + b'"}')


def test_a_byte_order_mark_and_real_surrogate_pairs_are_fine() -> None:
    assert lines.parse_line(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert len(lines.parse_line(json.dumps({"a": [[1]] * 500}).encode())["a"]) == 500


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_an_object_or_a_data_error(line: bytes) -> None:
    try:
        reason = type(lines.parse_line(line)).__name__
    except DataError as err:
        reason = str(err).split(":")[0]
    assert reason in {"dict", "not_utf8", "not_json", "not_an_object", "too_deep"}


def test_tools_of_every_dialect_become_the_same_functions() -> None:
    openai = {"type": "function", "function": WEATHER, "strict": True}
    mcp = {"name": "get_weather", "description": "Weather of a city", "inputSchema": WEATHER["parameters"]}
    expected = tool_schemas.normalise_tools([WEATHER])
    for dialect in ([json.dumps(WEATHER)], [openai], [mcp], json.dumps([WEATHER]), [WEATHER, WEATHER]):
        assert tool_schemas.normalise_tools(dialect) == expected
    assert expected == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Weather of a city",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string", "description": "City"},
                        "days": {"type": "integer", "default": 1, "enum": [1, 2]},
                        "unit": {"type": "string"},
                    },
                    "required": ["city"],
                },
            },
        }
    ]


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("dict", {"type": "object"}),
        ("float", {"type": "number"}),
        ("any", {}),
        ("tuple", {"type": "array"}),
        ("List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("Optional[str]", {"type": ["string", "null"]}),
        ("str | None", {"type": ["string", "null"]}),
        ("int | str", {"type": ["integer", "string"]}),
        ("string[]", {"type": "array", "items": {"type": "string"}}),
        (["string", "null"], {"type": ["string", "null"]}),
        (["str"], {"type": "string"}),
        ("SomeJavaClass", {}),
    ],
)
def test_type_names_are_mapped_or_dropped(written: object, normalised: dict) -> None:
    assert tool_schemas.normalise_schema({"type": written}) == normalised


def test_required_and_optional_flags_at_properties_move_to_the_list() -> None:
    schema = parameters(
        {
            "type": "object",
            "required": ["a", "b", "gone"],
            "properties": {
                "a": {"type": "string", "optional": True},
                "b": {"type": "object", "properties": {"c": {"type": "int", "required": True}}},
                "d": {"type": "string", "required": True},
                "e": {"type": "str, optional"},
            },
        }
    )
    assert schema["required"] == ["b", "d"]
    assert schema["properties"]["b"]["required"] == ["c"]
    assert not any("optional" in prop for prop in schema["properties"].values())


def test_enum_values_are_cast_to_the_declared_type_when_that_is_possible() -> None:
    assert tool_schemas.normalise_schema({"type": "float", "enum": ["1.5", 2]})["enum"] == [1.5, 2]
    assert tool_schemas.normalise_schema({"type": "boolean", "enum": ["true", False]})["enum"] == [True, False]
    assert tool_schemas.normalise_schema({"type": "integer", "enum": ["one", 2]})["enum"] == ["one", 2]


def test_keywords_with_values_that_json_schema_forbids_are_dropped() -> None:
    schema = parameters(
        {"properties": {"a": {"type": "int", "minimum": "0", "pattern": "(", "title": 3, "maxItems": -1}}}
    )
    assert schema["properties"]["a"] == {"type": "integer"}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["str", "int", "dict", "array", "x", "str, optional", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "items",
                    "enum",
                    "required",
                    "anyOf",
                    "minimum",
                    "default",
                    "a",
                    "$ref",
                    "format",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["type", "properties", "required", "items", "anyOf", "a"]), json_values, max_size=4)
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_given_as_parameters_comes_out_as_valid_json_schema_or_an_error(schema: dict) -> None:
    try:
        result = parameters(schema)
    except DataError as err:
        result = {"type": "object", "properties": {}} if err.reason == "bad_tool" else {}
    Draft202012Validator.check_schema(result)
    assert result["type"] == "object"
    assert isinstance(result["properties"], dict)


@pytest.mark.parametrize("adapter_fields", [{}, {"behaviour": "direct"}, {"class": "direct"}])
def test_tools_null_empty_and_absent_are_the_same(adapter_fields: dict) -> None:
    record = {
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}],
        **adapter_fields,
    }
    made = [canonical.to_canonical(record | tools, "sft", "s", 1) for tools in ({}, {"tools": None}, {"tools": []})]
    assert made[0] == made[1] == made[2]
    assert made[0]["tools"] == []


def test_two_different_tools_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match=r"^duplicate_tool: two different tools are called 'get_weather'"):
        tool_schemas.normalise_tools([WEATHER, {"name": "get_weather"}])


def test_openai_rows_become_canonical_with_dict_arguments_and_a_stable_id() -> None:
    record = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Weather?"}]}, CALL],
        "tools": [WEATHER],
    }
    row = canonical.to_canonical(record, "sft", "mine.jsonl", 1)
    assert row["behaviour"] == "tool_call"
    assert row["messages"] == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
            ],
        },
    ]
    again = canonical.to_canonical(dict(reversed(record.items())), "sft", "elsewhere", 7)
    assert row["id"] == again["id"]
    assert len(row["id"]) == 16


@pytest.mark.parametrize(
    ("record", "kind", "reason"),
    [
        ({"foo": 1}, "sft", r"unknown_schema: the record has the fields \['foo'\]"),
        ({"prompt": "hi", "chosen": "a"}, "preference", "missing_field:rejected"),
        ({"messages": []}, "sft", "bad_content"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "sft", "bad_role: 'king'"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "sft", "bad_role: the last message is the 'user'"),
        ({"messages": [{"role": ["user"], "content": "hi"}]}, "sft", "bad_role"),
        ({"messages": [{"role": "user", "content": 3}]}, "sft", "bad_content"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "sft",
            "bad_arguments: '{' of 'f' is not JSON",
        ),
        ({"messages": [{"role": "assistant", "content": "a"}], "behaviour": "magic"}, "sft", "bad_behaviour: 'magic'"),
        ({"messages": [{"role": "assistant", "content": "a"}], "tools": 3}, "sft", "bad_tools"),
        (
            {"question": "q", "answers": {"direct": "a"}, "correct_answer": "direct"},
            "choice",
            "missing_field:answers.tool_call",
        ),
        ({"question": "q", "answers": {}}, "choice", "missing_field:correct_answer"),
        ({"question": [[]], "function": [{}], "id": "simple_python_0"}, "sft", "unknown_schema: a BFCL record"),
    ],
)
def test_a_record_that_is_no_row_is_an_error_with_reason_line_and_source(
    record: dict, kind: vocabulary.RowKind, reason: str
) -> None:
    with pytest.raises(DataError, match=rf"^{reason}.*\(line 12 of 'src'\)$"):
        canonical.to_canonical(record, kind, "src", 12)


def test_preference_and_choice_rows_pass_through_the_canonical_form_unchanged() -> None:
    preference = {
        "id": "p1",
        "source": "s",
        "prompt": [{"role": "user", "content": "q"}],
        "tools": tool_schemas.normalise_tools([WEATHER]),
        "chosen": {"role": "assistant", "content": "a"},
        "rejected": {"role": "assistant", "content": "b"},
        "behaviour": "direct",
        "rejected_kind": "wrong_tool",
    }
    assert canonical.to_canonical(preference, "preference", "s", 1) == preference
    assert (
        canonical.to_canonical(preference | {"prompt": "q", "chosen": [preference["chosen"]]}, "preference", "s", 1)
        == preference
    )
    choice = {
        "id": "c1",
        "source": "s",
        "question": "q",
        "tools": [],
        "answers": dict.fromkeys(vocabulary.BEHAVIOURS, "text"),
        "correct_answer": "cannot_answer",
    }
    assert canonical.to_canonical(choice, "choice", "s", 1) == choice


def test_a_snapshot_gives_back_the_rows_that_were_written(tmp_path: Path) -> None:
    record = {"messages": [{"role": "user", "content": "Wetter in Köln?"}, CALL], "tools": [WEATHER]}
    row = canonical.to_canonical(record, "sft", "s", 1)
    many = [row | {"id": str(i), "n_tokens": i} for i in range(2500)]
    assert write_rows(tmp_path, "sft", iter(many)) == 2500
    assert snapshots.read_snapshot(tmp_path, "sft") == [
        {name: r.get(name) for name in (*snapshots.COLUMNS["sft"], "n_tokens")} for r in many
    ]


def test_a_folder_without_the_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^missing_snapshot: .*choice\.parquet' is not there; run the ingest flow first"
    ):
        snapshots.read_snapshot(tmp_path, "choice")
