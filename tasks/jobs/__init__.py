"""One job of the training program on a backend."""
