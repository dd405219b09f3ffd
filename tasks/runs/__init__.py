"""A recipe's whole run: what it will cost, what of it is there, which model a name means, its MLflow record."""
