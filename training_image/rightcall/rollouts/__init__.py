"""What is made of a model's own answers.

mining_report.py  the numbers of a mined set, and a few pairs to look at
pairs.py          judged answers → preference pairs, balanced and short enough to train on
steps.py          which steps are answered, with which seeds
"""
