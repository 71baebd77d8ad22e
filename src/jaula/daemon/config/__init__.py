"""The daemon's configuration: ``daemon.json`` and the flags of ``jaula daemon``."""
