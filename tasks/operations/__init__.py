"""What keeps the house running, beside the flows.

ui.py  `make ui`: Prefect and MLflow in the browser
"""
