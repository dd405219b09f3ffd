"""Numbers with intervals, and the gate's decision.

baseline.py     the word rule that is quoted beside every score
clusters.py     the bootstrap over conversations
conditions.py   the gate's conditions: what the numbers say of each, and how many more would settle it
gate.py         GO, NO-GO or INCONCLUSIVE, with its reasons in numbers
intervals.py    Wilson, McNemar and the paired bootstrap
metrics.py      accuracy, macro-F1, recalls, hallucination
proof.py        p, Holm's step-down, and the n that proves a difference
written.py      what a model writes: right, overcall, valid call, faults
"""
