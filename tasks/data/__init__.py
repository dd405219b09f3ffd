"""From a source to checked rows in a folder; the only room that imports data_checks.

checked_rows.py     rows through the checks, some thousand at a time
downloads.py        pip, the Hub's client, boto3
lines.py            lines of files as a bounded stream
near_duplicates.py  rows that nearly repeat an earlier one: signatures on disk
snapshot.py         sources to three parquet files and a quarantine
snapshot_checks.py  checks.json, and when it stops the flow
sources.py          hf:, s3:, pypi:, paths: pinned and hash-checked
"""
