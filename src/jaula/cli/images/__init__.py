"""Shared parts of the commands on images: pull, save, prune, trust, manifest lists."""
