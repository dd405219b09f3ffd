"""Numbers with intervals, and the gate's decision.

baseline.py     the word rule that is quoted beside every score
gate.py         GO, NO-GO or INCONCLUSIVE, with its reasons in numbers
generations.py  shares of free answers that are right, and two models' answers compared
intervals.py    Wilson, McNemar and the paired bootstrap
metrics.py      accuracy, macro-F1, recalls, hallucination
"""
