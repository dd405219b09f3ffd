"""Where results lie, how one is committed, who holds its lease."""
