"""How each dialect writes calls, written down from the models' templates and apart from the readers.

A writer takes calls whose arguments are texts, numbers, booleans, null, lists and objects; texts hold no element's or mark's own sign.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

Call = dict[str, Any]
Writer = Callable[[Sequence[Call]], str]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(value: Any) -> str:
    """As Jinja writes a value in the dialects whose values are text."""
    return value if isinstance(value, str) else _json(value)


def _plain(call: Call, key: str = "arguments") -> Call:
    return {"name": call["name"], key: call["arguments"]}


def _wire(call: Call) -> Call:
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": call["name"], "arguments": _json(call["arguments"])},
    }


def _python(call: Call) -> str:
    return f"{call['name']}({', '.join(f'{key}={value!r}' for key, value in call['arguments'].items())})"


def _gemma_value(value: Any, mark: str) -> str:
    if isinstance(value, str):
        return f"{mark}{value}{mark}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_gemma_value(item, mark)}" for key, item in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_gemma_value(item, mark) for item in value) + "]"
    return _json(value)


def _gemma(call: Call, opening: str, mark: str, closing: str) -> str:
    return f"{opening}call:{call['name']}{_gemma_value(call['arguments'], mark)}{closing}"


def _function(call: Call) -> str:
    parameters = "".join(
        f"<parameter={key}>\n{_text(value)}\n</parameter>\n" for key, value in call["arguments"].items()
    )
    return f"<function={call['name']}>\n{parameters}</function>"


def _glm(call: Call) -> str:
    pairs = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{_text(value)}</arg_value>\n" for key, value in call["arguments"].items()
    )
    return f"<tool_call>{call['name']}\n{pairs}</tool_call>"


def _dsml(call: Call) -> str:
    parameters = "".join(
        f'<｜DSML｜parameter name="{key}" string="{_json(isinstance(value, str))}">{_text(value)}</｜DSML｜parameter>\n'
        for key, value in call["arguments"].items()
    )
    return f'<｜DSML｜invoke name="{call["name"]}">\n{parameters}</｜DSML｜invoke>\n'


def _minimax(call: Call) -> str:
    parameters = "".join(
        f'<parameter name="{key}">{_text(value)}</parameter>\n' for key, value in call["arguments"].items()
    )
    return f'<invoke name="{call["name"]}">\n{parameters}</invoke>\n'


def _muse(call: Call) -> str:
    parameters = "".join(
        f'<atem:parameter name="{key}">{_text(value)}</atem:parameter>\n' for key, value in call["arguments"].items()
    )
    invoke = f'<atem:invoke name="{call["name"]}">\n{parameters}</atem:invoke>\n'
    return f"to={call['name']}<|message|><atem:function_calls>\n{invoke}</atem:function_calls>"


def _deepseek_v3(call: Call) -> str:
    return (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call['name']}\n```json\n{_json(call['arguments'])}\n```"
        "<｜tool▁call▁end｜>"
    )


def _each(write: Callable[[Call], str], between: str = "\n", before: str = "", after: str = "") -> Writer:
    return lambda calls: before + between.join(map(write, calls)) + after


def _hermes(call: Call) -> str:
    return f"<tool_call>\n{_json(_plain(call))}\n</tool_call>"


def _listed(key: str = "arguments", before: str = "", after: str = "") -> Writer:
    return lambda calls: f"{before}{_json([_plain(call, key) for call in calls])}{after}"


def _cohere(calls: Sequence[Call]) -> str:
    found = [
        {"tool_call_id": str(number), "tool_name": call["name"], "parameters": call["arguments"]}
        for number, call in enumerate(calls)
    ]
    return f"<|START_ACTION|>{json.dumps(found, indent=4, ensure_ascii=False)}<|END_ACTION|>"


def _mistral_v3(calls: Sequence[Call]) -> str:
    return "[TOOL_CALLS] " + _json([{**_plain(call), "id": f"call{number:05}"} for number, call in enumerate(calls)])


def _kimi(calls: Sequence[Call]) -> str:
    inside = "".join(
        f"<|tool_call_begin|>functions.{call['name']}:{number}<|tool_call_argument_begin|>{_json(call['arguments'])}<|tool_call_end|>"
        for number, call in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{inside}<|tool_calls_section_end|>"


# What a template writes, read with nothing forgiven.
TEMPLATES: dict[str, Writer] = {
    "Hermes, Qwen2.5, Qwen3": _each(_hermes),
    "Llama 3.1": _each(lambda call: _json(_plain(call, "parameters")), "; "),
    "Llama 3.1, behind its tag": _each(lambda call: _json(_plain(call, "parameters")), "; ", "<|python_tag|>"),
    "Llama 3.1, own functions": _each(lambda call: f"<function={call['name']}>{_json(call['arguments'])}</function>"),
    "Llama 3.2, Gemma 3, pythonic": _each(_python, ", ", "[", "]"),
    "Llama 4, pythonic": _each(_python, ", ", "<|python_start|>[", "]<|python_end|>"),
    "LFM2": _each(_python, ", ", "<|tool_call_start|>[", "]<|tool_call_end|>"),
    "Mistral v3": _mistral_v3,
    "Mistral v7": _listed(before="[TOOL_CALLS]"),
    "Mistral v11": _each(lambda call: f"[TOOL_CALLS]{call['name']}{_json(call['arguments'])}", ""),
    "Mistral v11, CALL_ID": _each(
        lambda call: f"[TOOL_CALLS]{call['name']}[CALL_ID]a1B2c3D4e[ARGS]{_json(call['arguments'])}", ""
    ),
    "Mistral v13": _each(lambda call: f"[TOOL_CALLS]{call['name']}[ARGS]{_json(call['arguments'])}", ""),
    "Granite 3.0": _listed(before="<|tool_call|>"),
    "Granite 3.1": _listed(before="<tool_call>", after="</tool_call>"),
    "Phi-4-mini": _listed(before="<|tool_call|>", after="<|/tool_call|>"),
    "Phi-4-mini, functools": _listed(before="functools"),
    "Nemotron Nano, When2Call": _listed(before="<TOOLCALL>", after="</TOOLCALL>"),
    "DeepSeek V3, R1": _each(_deepseek_v3, "\n", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    "DeepSeek V3.1": _each(
        lambda call: f"<｜tool▁call▁begin｜>{call['name']}<｜tool▁sep｜>{_json(call['arguments'])}<｜tool▁call▁end｜>",
        "", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
    ),
    "DeepSeek V3.2": _each(_dsml, "", "<｜DSML｜function_calls>\n", "</｜DSML｜function_calls>"),
    "MiniMax M2": _each(_minimax, "", "<minimax:tool_call>\n", "</minimax:tool_call>"),
    "Muse": _each(_muse, "<|eom|><|start|>assistant "),
    "Kimi K2": _kimi,
    "GLM-4.5": _each(_glm),
    "GLM-4, older": _each(lambda call: f"<tool_call>{call['name']}\n{_json(call['arguments'])}\n</tool_call>"),
    "Qwen3-Coder, Qwen3.5, Nemotron 3": _each(lambda call: f"<tool_call>\n{_function(call)}\n</tool_call>"),
    "Seed-OSS": _each(lambda call: f"<seed:tool_call>\n{_function(call)}\n</seed:tool_call>"),
    "FunctionGemma": _each(
        lambda call: _gemma(call, "<start_function_call>", "<escape>", "<end_function_call>"), ""
    ),
    "Gemma 4": _each(lambda call: _gemma(call, "<|tool_call>", '<|"|>', "<tool_call|>"), ""),
    "Gemini, tool_code": _each(lambda call: f"print({_python(call)})", "\n", "```tool_code\n", "\n```"),
    "Cohere": _cohere,
    "gpt-oss": _each(
        lambda call: f"<|channel|>commentary to=functions.{call['name']} <|constrain|>json<|message|>"
        f"{_json(call['arguments'])}<|call|>", "<|start|>assistant",
    ),
    "gpt-oss, its template": _each(
        lambda call: f" to=functions.{call['name']}<|channel|>commentary json<|message|>{_json(call['arguments'])}<|call|>", "",
    ),
    "OpenAI": _each(lambda call: _json(_wire(call))),
    "OpenAI, a list": lambda calls: _json([_wire(call) for call in calls]),
    "OpenAI, a message": lambda calls: _json({"tool_calls": [_wire(call) for call in calls]}),
    "arguments before the name": _each(lambda call: _json({"arguments": call["arguments"], "name": call["name"]})),
    "xLAM": _listed(),
    "calls of Python a line": _each(_python),
    "ReAct": _each(lambda call: f"Action: {call['name']}\nAction Input: {_json(call['arguments'])}"),
}  # fmt: skip

# What a reader of the dialect may refuse, and what had to be forgiven.
TOLERATED: dict[str, tuple[Writer, set[str]]] = {
    "a fence": (_each(lambda call: f"```json\n{_json(_plain(call))}\n```"), {"fence"}),
    "a fence, shouted": (_each(lambda call: f"```JSON\n{_json(_plain(call))}\n```"), {"fence"}),
    "a dict of Python": (_each(lambda call: repr(_plain(call))), {"python_dict"}),
    "a dict of Python in a tag": (_each(lambda call: f"<tool_call>{_plain(call)!r}</tool_call>"), {"python_dict"}),
    "a trailing comma": (_each(lambda call: _json(_plain(call))[:-1] + ",}"), {"trailing_comma"}),
    "an assignment": (_each(lambda call: f"result = {_python(call)}"), {"assignment"}),
    "no closing tag": (_each(lambda call: f"<tool_call>\n{_json(_plain(call))}\n"), {"unclosed"}),
    "Anthropic's key": (
        _each(lambda call: _json({"type": "tool_use", "id": "t", "name": call["name"], "input": call["arguments"]})), {"other_keys"},
    ),
}  # fmt: skip
EVERY_WAY: dict[str, Writer] = TEMPLATES | {name: writer for name, (writer, _) in TOLERATED.items()}

# a second call, of a tool now, town-weather or mcp.rail.find, in a sentence or a rare form
HIDDEN = [
    "<function=now>{}</function>", "Action: now\nAction Input: {}", "result = now()", "I also run town-weather(from='Linz').",
    "await town-weather(from='Linz') at last", 'then mcp.rail.find({"to": "Wien"}) it is', "Also `now()` is called.",
    '{"action": "now", "action_input": {}}', '{"tool": "now", "args": {}}', '<tool name="now">{}</tool>', 'now: {"x": 1}', "call:now{x:1}",
    '{\\"name\\": \\"now\\", \\"arguments\\": {}}', "Tool: now\nInput: {}", "<now/>", "<tool><name>now</name></tool>", "now (x=1)",
    'town-weather("Linz")', 'I asked town-weather with {"town": "Linz"}.', "- now()", "<Tool_Call>now()</Tool_Call>", '{"name": "now"}',
]  # fmt: skip
