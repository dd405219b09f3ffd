"""What of AWS is not about one service's job: clients, requests to S3, errors in the words of whoever fixes them."""
