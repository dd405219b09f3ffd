"""What keeps the house running, beside the flows."""
