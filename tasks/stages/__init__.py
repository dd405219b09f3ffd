"""One stage of the product a file: its slice of the recipe, `@stage`, one call, one log line.

gate.py      scores to a verdict
ingest.py    sources to a checked, frozen snapshot
mine.py      pairs from what the model itself writes
report.py    everything to one HTML file
run_job.py   one job, on whichever backend the recipe names
score.py     a model's scores on the evaluation
training.py  base, SFT, DPO
"""
