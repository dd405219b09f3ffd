"""Where results lie, how one is committed, who holds its lease.

file_leases.py    leases as files of one folder
folder_store.py   one folder per result, the manifest last
lease_holders.py  who holds a lease, and whether it still lives
leases.py         a lock that its holder renews
manifests.py      a result's ref, and the sha256 of every file
opening.py        which store an address means
s3_leases.py      leases by conditional writes
s3_records.py     Prefect's records in S3
s3_store.py       the store at s3://
"""
