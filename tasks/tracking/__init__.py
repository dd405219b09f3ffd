"""MLflow: runs, versions, aliases.

connection.py   which server, whether it answers, what its errors become
mlflow_runs.py  stage results as MLflow runs
redaction.py    passwords and secrets taken out of what is logged
registry.py     versions by reference, aliases
traces.py       an experiment's traces as spans
versions.py     one version in MLflow's registry
"""
