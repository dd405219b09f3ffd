"""Where a list of tools can come from that is no file of tools.

listing.py   which of them a source names, and its tools as JSON
mcp.py       mcp: what a Model Context Protocol server says it offers, a command's or an address's
openapi.py   openapi: each operation of a document is one tool
"""
