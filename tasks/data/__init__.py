"""From a source to checked rows in a folder; the only room that imports data_checks.

checked_rows.py     rows through the checks, some thousand at a time
conversations.py    logged conversations: read, freed of secrets, each on its side
described.py        checks.json in words
downloads.py        pip, the Hub's client, boto3
near_duplicates.py  rows that nearly repeat an earlier one: signatures on disk
preview.py          three rows as they are trained on
snapshot.py         sources to a parquet file for each kind of rows, and a quarantine
snapshot_checks.py  checks.json, and when it stops the flow
sources.py          hf:, s3:, pypi:, paths: pinned and hash-checked
split.py            conversations to training rows and steps, a group never on both sides
tally.py            what is counted of one kind of rows
"""
