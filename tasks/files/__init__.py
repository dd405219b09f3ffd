"""A file of rows as a stream of records, whatever its format.

lines.py   JSON lines, a JSON array, gzip; a line that cannot be read is reported, not raised
tables.py  parquet and Arrow: each row as the JSON line that it would be
"""
