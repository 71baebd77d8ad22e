"""The engine's state in memory, and the values that its packages share."""
