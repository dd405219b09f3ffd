"""Numbers with intervals, and the gate's decision.

baseline.py   the word rule that is quoted beside every score
clusters.py   the bootstrap over conversations
gate.py       GO, NO-GO or INCONCLUSIVE, with its reasons in numbers
intervals.py  Wilson, McNemar and the paired bootstrap
metrics.py    accuracy, macro-F1, recalls, hallucination
written.py    written answers: shares, paired differences, the table of faults
"""
