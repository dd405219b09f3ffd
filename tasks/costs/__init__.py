"""Seconds and dollars: before a job and after it."""
