"""Where tools and conversations can come from that are no file of them.

listing.py   which tools a source names, and they themselves as JSON
mcp.py       mcp: what a Model Context Protocol server says it offers, a command's or an address's
openapi.py   openapi: each operation of a document is one tool
traces.py    traces: what an agent's telemetry recorded, an MLflow experiment's or a file's, as conversations
"""
