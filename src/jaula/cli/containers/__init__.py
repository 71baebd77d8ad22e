"""Shared parts of the commands on containers: options, columns, attach, cp."""
