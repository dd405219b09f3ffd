"""One YAML file, one experiment: its fields, and whether they agree."""
