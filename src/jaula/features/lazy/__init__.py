"""Lazy pulls: layers that are mounted while their blobs are still fetched."""
