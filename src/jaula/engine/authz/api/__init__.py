"""The engine as one caller may use it: every use case judged, and noted where it changes something.

A view has the methods of the engine's use cases. What it judges is the value that it hands on.
"""
