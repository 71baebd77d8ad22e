"""The messages of BuildKit's protocol that are used, and their generated modules.

The names and numbers of fields are those of moby/buildkit, tonistiigi/fsutil and containerd. Fields
that the engine neither reads nor writes are left out: a receiver skips them. ``scripts/protobuf``
writes the modules from the ``.proto`` files.
"""
