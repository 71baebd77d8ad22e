"""Audit by the CIS Docker Benchmark 1.6.0: ``jaula audit``."""
