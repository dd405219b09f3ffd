"""What a finished stage left, read back; nothing here imports the stage that wrote it.

files.py       the files that a stage leaves, and how they are read
score_text.py  one model's scores for a terminal
scores.py      written answers, chosen ones, and the numbers they give, computed once a process
"""
