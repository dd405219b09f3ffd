"""How any stage runs: its key, lock, retries, cancelling."""
