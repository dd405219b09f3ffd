"""What runs a job: hosts, processes, storage."""
