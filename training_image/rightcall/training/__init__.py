"""Makes a model."""
