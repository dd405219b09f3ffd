"""Measures a model."""
