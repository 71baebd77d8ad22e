"""Quadlet: unit files of containers, volumes, networks, pods, images, builds and kube YAML.

A systemd generator makes services from them, which run ``jaula``. The files are those of podman.
"""
