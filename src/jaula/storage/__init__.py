"""File systems of containers: layers, snapshots of them, volumes, and trees as archives.

Knows no image and no container: layers are named by diff id, snapshots by an id that the caller
gives.
"""
