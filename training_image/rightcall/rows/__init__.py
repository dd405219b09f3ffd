"""A row: read, made canonical, kept on disk.

canonical.py     a record of any schema as a canonical row
lines.py         one line of a JSONL file as an object
snapshots.py     rows as columns of a parquet file, and back
tool_schemas.py  tool definitions of any dialect as OpenAI functions with valid JSON Schema
vocabulary.py    behaviours, kinds of rows, kinds of rejected answers
when2call.py     NVIDIA's four file schemas
"""
