"""A registered model that answers."""
