"""A recipe's whole run: what it will cost, which of its results are there, which model a name means, its MLflow record."""
