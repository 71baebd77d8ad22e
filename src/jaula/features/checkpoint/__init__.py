"""Checkpoints with CRIU: create, restore, roll back."""
