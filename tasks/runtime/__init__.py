"""How any stage runs: its key, lock, retries, cancelling.

cancellation.py  a run cancelled in Prefect: noticed, and ended as Cancelled
freshness.py     --fresh, and the warning about results that other versions made
keys.py          what a stage's key is made of
retries.py       which errors are worth another try
stage.py         @stage: a function becomes a cached, locked, resumable task
"""
