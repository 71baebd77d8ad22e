"""EROFS: read-only file systems whose metadata and file contents are in two files."""
