"""What a model writes, token by token.

grammar.py             answers whose calls keep to the offered tools' JSON Schemas: masks, and the first token that breaks them
grammar_arguments.py   a tool's JSON Schema as rules of the engine
grammar_dialect.py     how a chat template writes calls
grammar_text.py        what free text may not hold, so that no call passes unseen
grammar_tokens.py      the bytes of every token of a vocabulary
"""
