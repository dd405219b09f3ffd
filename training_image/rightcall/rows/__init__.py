"""A row: read, made canonical, kept on disk.

canonical.py             a record of any schema as a canonical row
conversation_records.py  a logged record as a conversation, or why it is none
conversations.py         a conversation's trained turns, its steps, its shorter forms
lines.py                 one line of a JSONL file as an object
secrets.py               credentials, replaced before anything is stored
snapshots.py             rows as columns of a parquet file, and back
tool_schemas.py          tool definitions of any dialect as OpenAI functions with valid JSON Schema (schemas/ does the schemas)
vocabulary.py            behaviours, kinds of rows, kinds of rejected answers
when2call.py             NVIDIA's four file schemas
"""
