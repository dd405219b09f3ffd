"""What a job is: its stage, folders, launch, failure, progress."""
