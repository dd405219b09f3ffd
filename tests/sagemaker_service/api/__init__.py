"""The SageMaker API: its operations, wire format, rules and faults."""
