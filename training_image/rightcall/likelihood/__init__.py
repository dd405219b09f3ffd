"""Log-probabilities over prefix trees."""
