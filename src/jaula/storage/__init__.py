"""Layers, container snapshots, volumes, and tar archives of file trees.

The package does not know images or containers. A layer is named by its diff id, a snapshot by an id
that the caller chooses.
"""
