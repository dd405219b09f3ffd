"""What of AWS is not about one service's job: clients, S3's requests, errors with what to do.

clients.py    one boto3 client a service, process and environment
errors.py     botocore's errors, with what to do about each
s3.py         addresses and small requests
transfers.py  many files at once, each with its sha256, none sent twice
"""
