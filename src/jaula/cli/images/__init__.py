"""Shared parts of the commands on images: pull, save, prune, signing, manifest lists."""
