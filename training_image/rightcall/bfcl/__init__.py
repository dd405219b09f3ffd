"""Rows derived from BFCL."""
