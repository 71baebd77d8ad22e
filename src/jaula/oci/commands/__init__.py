"""The commands of ``jaula-runtime``: ``run(call)`` gives the exit status, ``FLAGS`` the flags."""
