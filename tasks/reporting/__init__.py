"""What people are shown: Prefect artifacts, the closing table, the report."""
