"""One YAML file, one experiment: its fields, and whether they agree.

loading.py     a file and its --set overrides to a Recipe, or every problem at once
pins.py        whether a source is pinned, and whether a value looks like a secret
rules.py       which fields contradict each other; names that TRL does not know
schema.py      the whole Recipe
sections.py    its sections, each field described
yaml_lines.py  YAML 1.2 with line numbers and duplicate keys
"""
