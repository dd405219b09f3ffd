"""Numbers with intervals, and the gate's decision."""
