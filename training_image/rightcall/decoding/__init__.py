"""What a model writes: many answers at once over prompts whose shared beginnings are computed once, free or under a grammar.

decoder.py             prompts → answers, tree by tree
grammar.py             answers whose calls keep to the offered tools' JSON Schemas: masks, and the first token that breaks them
grammar_arguments.py   a tool's JSON Schema as rules of the engine
grammar_dialect.py     how a chat template writes calls
grammar_text.py        what free text may not hold, so that no call passes unseen
grammar_tokens.py      the bytes of every token of a vocabulary
next_token.py          the next token of every open answer: greedy or sampled, free or constrained
partial_attention.py   attention to a part of the keys, and parts put together
plain.py               the same answers from a model that cannot be fed trees
tree_store.py          keys and values of a prefix tree and of the answers that grow out of it
"""
