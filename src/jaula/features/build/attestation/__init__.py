"""Attestations of images: in-toto statements, SLSA provenance, and their manifests. Pure."""
