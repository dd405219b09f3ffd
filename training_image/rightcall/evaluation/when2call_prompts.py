"""The prompt texts of When2Call's lm-eval tasks, character for character.

Attribution: the texts and the way calls are written are those of NVIDIA/When2Call,
evaluation/mcq/lm_eval_harness/when2call/utils.py, Copyright (c) 2025 NVIDIA CORPORATION, Apache License 2.0
(http://www.apache.org/licenses/LICENSE-2.0). Only the code around them was rewritten. Trailing spaces belong to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rightcall.errors import DataError
from rightcall.rows.when2call import tool_text

SYSTEM = (
    "You are a helpful AI assistant. \n"
    "You have access to the following tools described in <tool></tool> which you can use to answer the user's "
    "questions.\n"
    "Only use a tool if it directly answers the user's question.\n"
)
CALL_FORMAT = (
    "To use a tool, return JSON in the following format:\n"
    '{"name": "tool_name", "arguments": {"argument1": "value1", "argument2": "value2", ...}}\n'
)
QWEN_HEAD = (
    "<|im_start|>system\n"
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n"
    "# Tools\n\n"
    "You may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n"
    "<tools>\n"
)
QWEN_TAIL = (
    "\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
    "XML tags:\n"
    "<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call><|im_end|>\n"
)
LLAMA_HEAD = (
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "You are an expert in composing functions. You are given a question and a set of possible functions. \n"
    "Based on the question, you will need to make one or more function/tool calls to achieve the purpose. \n"
    "If none of the functions can be used, point it out. If the given question lacks the parameters required by the "
    "function,also point it out. You should only return the function call in tools call sections.\n"
    "If you decide to invoke any of the function(s), you MUST put it in the format of "
    "[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]\n"
    "You SHOULD NOT include any other text in the response.\n"
    "Here is a list of functions in JSON format that you can invoke.\n"
)


def prompt_and_answers(row: Mapping[str, Any], style: str) -> tuple[str, list[str]]:
    """The context and the four continuations, in the order of the row's answers, as the task gives them to lm-eval.

    Raises:
        DataError: the row's tool_call answer is not a JSON call (only the Llama task reads it).
    """
    prompt, format_call = _STYLES[style]
    answers = [format_call(row, text) if name == "tool_call" else text for name, text in row["answers"].items()]
    return prompt(row["question"], _tool_texts(row)), answers


def _tool_texts(row: Mapping[str, Any]) -> Sequence[str]:
    """Tools as the file writes them; in canonical form (normalised schemas) where that is the same or all there is."""
    if row.get("raw_tools") is not None:
        return list(row["raw_tools"])
    return [tool_text(tool) for tool in row["tools"]]


def _plain_prompt(question: str, tools: Sequence[str]) -> str:
    listed = "\n\n".join(f"<tool>{tool}</tool>" for tool in tools)
    return f"{SYSTEM}\n{CALL_FORMAT}\n\n{listed}\n\n{question}"


def _qwen(question: str, tools: Sequence[str]) -> str:
    listed = "".join(f"{tool}\n" for tool in tools).strip()
    return f"{QWEN_HEAD}{listed}{QWEN_TAIL}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def _llama(question: str, tools: Sequence[str]) -> str:
    listed = json.dumps([json.loads(tool) for tool in tools])
    turns = f"<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
    return f"{LLAMA_HEAD}{listed}{turns}<|start_header_id|>assistant<|end_header_id|>\n\n"


def _call_as_written(row: Mapping[str, Any], text: str) -> str:
    return text


def _call_as_python(row: Mapping[str, Any], text: str) -> str:
    """[get_ip(verbose=True, host="a.b")]: values as Python writes them, but strings in double quotes, unescaped."""
    try:
        call = json.loads(text)
        arguments = [
            f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}"
            for name, value in call["arguments"].items()
        ]
        return f"[{call['name']}({', '.join(arguments)})]"
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise DataError(
            f"the tool_call answer of item {row.get('id')!r} is {text[:120]!r}, not a JSON object with name and "
            "arguments; correct it"
        ) from err


_STYLES: dict[str, tuple[Callable[[str, Sequence[str]], str], Callable[[Mapping[str, Any], str], str]]] = {
    "when2call": (_plain_prompt, _call_as_written),
    "when2call-qwen2_5": (_qwen, _call_as_written),
    "when2call-llama3_2": (_llama, _call_as_python),
}
