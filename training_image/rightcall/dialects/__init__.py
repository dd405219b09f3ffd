"""How models write calls: each dialect's reader, and the one that finds and reads calls in any text. Nothing is executed.

elements.py  <function=f><parameter=a>…, GLM's <arg_key>, <invoke name="f">: values are text, typed by the tool's schema
finding.py   where in a text a call may begin
gemma.py     call:f{a:<escape>x<escape>}: FunctionGemma, Gemma 4
literals.py  f(a=1), {'a': None}: calls and values of Python, read from the text
marked.py    a name between marks before JSON: Mistral, DeepSeek, Kimi, gpt-oss, ReAct
objects.py   {"name": "f", "arguments": {}} and OpenAI's, Cohere's and other keys
prose.py     what the text around the calls may tell of
reading.py   every call in a text, the dialect it is in, and what had to be forgiven
values.py    the JSON values of calls, and why one cannot be read
"""
