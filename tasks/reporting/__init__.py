"""What people are shown: Prefect artifacts, the closing table, the report.

closing_table.py      what a run prints at its end, and the commands to type next
mining.py             what was mined: error kinds, steps, examples
page.py               the HTML report
page_data.py          its numbers and sentences as plain values
plots.py              its pictures
prefect_artifacts.py  what the Prefect UI shows of a run
"""
