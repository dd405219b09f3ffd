"""Tools for whoever runs rightcall, beside the flows."""
