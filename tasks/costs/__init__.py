"""Seconds and dollars, before a job and after it.

bills.py       what a run's results cost
estimates.py   a SageMaker job's estimate, and its limit
prices.py      instance prices from one dated file (prices.json), and its refresh
throughput.py  how long a job takes: operations over what the hardware does
"""
