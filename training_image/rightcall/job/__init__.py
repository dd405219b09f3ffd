"""What a job is: its stage, folders, launch, failure, progress.

failures.py         the error that ends a job, told once by the process that made it
folders.py          the SageMaker container contract, on any machine
launch.py           which processes a job starts on this host
metrics_log.py      metrics.jsonl, the lines that a job writes while it runs
parent_death.py     processes that do not outlive the one that started them
partial_results.py  finished pieces of work, kept for the next attempt
stage_table.py      what each stage is, one row a stage
stopping.py         when a process hears that it has to stop
"""
