"""What a finished stage left, read back; nothing here imports the stage that wrote it."""
