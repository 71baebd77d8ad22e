"""Tar archives: reader, writer, pax headers."""
