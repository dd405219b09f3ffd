"""AWS: clients, requests to S3, and errors that say what to do."""
