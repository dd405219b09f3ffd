"""Many processes, one result.

full_state.py    whole weights and optimiser states, and back into any sharing
global_batch.py  one step's rows, shared by any number of processes
processes.py     who this process is, and what the others know
shared_steps.py  mixed in before a TRL trainer: many processes take one process's steps
"""
