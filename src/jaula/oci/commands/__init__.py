"""The commands of ``jaula-runtime``: ``run`` returns the exit status, ``FLAGS`` are the flags."""
