"""A first recipe for the files that a person has.

choices.py      which values their recipe gets, each with the reason
facts.py        what the conversations are like: steps, behaviours, groups, lengths
looking.py      what kind of rows a file holds; tools, policy and tokenizer beside it
recipe_text.py  the recipe as commented YAML, and what is said on the screen
"""
