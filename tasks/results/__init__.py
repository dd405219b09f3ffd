"""What a finished stage left, read back; nothing here imports the stage that wrote it.

files.py   the files that a stage leaves, and how they are read
scores.py  per-item scores and the numbers they give, computed once a process
"""
