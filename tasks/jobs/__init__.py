"""One job of the training program on a backend.

contract.py  what a job is given and gives back
local.py     the training program over a SageMaker-shaped folder
progress.py  a job's lines in the log, its progress artifact
"""
