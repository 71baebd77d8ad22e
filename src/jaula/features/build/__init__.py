"""Builds: Dockerfiles and BuildKit's protocol."""
