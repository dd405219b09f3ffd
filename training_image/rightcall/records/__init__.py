"""A record of a user's file, in any of the field's schemas, as a canonical row.

conversation_records.py  a logged record as a conversation, or why it is none
glaive.py                a chat in one text, after Glaive
pairs.py                 two answers to one prompt: TRL, OpenAI's preference format, ShareGPT
reading.py               a record of any schema as a canonical row
schemas.py               which schema a record is in, told by its columns, and the same under OpenAI's names
text_calls.py            calls, results and tools that stand as text in messages: Hermes, ToolACE and their kind
turns.py                 conversations: OpenAI, ShareGPT, prompt and completion, xLAM
"""
