"""Messages and tools to token ids and a loss mask, by the model's own template."""
