"""A recipe's whole run: its cost, what of it is there, which model a name means, its record.

earlier.py      the results of a recipe's earlier run, from the store alone
estimate.py     what a whole run will cost, before its first job
inputs.py       whether what it names is on this machine, before anything starts
model_names.py  names on a command line to refs
recorded.py     the run in MLflow
"""
