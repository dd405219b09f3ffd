"""JSON Schemas as tools bring them, in any dialect, to ones that the verifier and the grammar read alike.

branches.py    what stands behind a root's anyOf, oneOf, then: brought forward, and taken back for judging
document.py    one tool's schema: its references, followed without a fetch, and what it may cost
keywords.py    which keywords there are, and which values the metaschema allows them
merging.py     two schemas that both hold, as one
normalise.py   a schema, level by level
types.py       names of types: "str, optional", List[int], STRING
"""
