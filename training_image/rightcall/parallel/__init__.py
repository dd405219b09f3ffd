"""Many processes, one result."""
