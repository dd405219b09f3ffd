"""A row: read, made canonical, kept on disk.

canonical.py      a record under OpenAI's names as a canonical row
conversations.py  a conversation's trained turns, its steps, its shorter forms
lines.py          one line of a JSONL file as an object
secrets.py        credentials, replaced before anything is stored
snapshots.py      rows as columns of a parquet file, and back
switches.py       which messages of a record are trained on: weight, train, loss
texts.py          values that stand as text: JSON, or Python's way of writing it
tool_schemas.py   tool definitions of any dialect as OpenAI functions with valid JSON Schema
vocabulary.py     behaviours, kinds of rows, kinds of rejected answers
when2call.py      NVIDIA's four file schemas
"""
