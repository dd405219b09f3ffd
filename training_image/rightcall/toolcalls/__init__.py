"""The verifier: what did a model write, and was it right."""
