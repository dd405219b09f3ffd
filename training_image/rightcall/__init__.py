"""rightcall: teach a small language model to make the right call."""
