"""One file, one stage of the product: its slice, `@stage`, one call, one log line."""
