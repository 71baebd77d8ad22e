"""Metrics for Prometheus: tables of names, collection, text formats. Loaded by the first scrape."""
