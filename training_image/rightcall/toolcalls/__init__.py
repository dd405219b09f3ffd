"""The verifier: what did a model write, and was it right.

conduct.py         the policy's order: authenticated first, confirmed before a change
gold.py            what a gold call accepts, and which call is meant by which gold call
grounding.py       values of a call that nobody has said
judging.py         a step's answer: verdict, error kind, faults
phrases.py         what agents say in nine languages when they ask, refuse or offer: phrases.json
schema.py          whether a tool accepts a call, and whether two values are the same
template_check.py  whether the calls that a chat template writes can be read back
verifier.py        an answer compared with gold, the error named
words.py           what a text without a call does, by its words
"""
