"""What an agent's telemetry recorded, as conversations.

chats.py          what a span's call of a model was given and gave, in any convention, as OpenAI's messages and tools
client_calls.py   requests and responses of OpenAI's, Anthropic's, Gemini's and Bedrock's clients, as MLflow records them
conventions.py    the attributes and events of OpenTelemetry, old and new, OpenInference and Traceloop
conversations.py  the chats of many traces: one conversation a trace, beginnings of longer ones left out
messages.py       one recorded message, whoever's API it was written for, as OpenAI's
recorded.py       one call of a model, whatever the convention
spans.py          a line of OTLP JSON as spans and events
"""
