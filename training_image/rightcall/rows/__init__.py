"""A row: read, made canonical, kept on disk."""
