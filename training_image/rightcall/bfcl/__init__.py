"""Rows derived from the Berkeley Function-Calling Leaderboard's files.

calls.py          gold calls, invented values, and the ways to get a call wrong
derive.py         training and evaluation rows from the files
exchange.py       the same call with other values
phrases.py        wordings to train on, and others to evaluate with
situations.py     a question, its tools, and the behaviour that is right there
text.py           a value taken out of a question, a tool named in words
training_rows.py  SFT rows and preference pairs
"""
