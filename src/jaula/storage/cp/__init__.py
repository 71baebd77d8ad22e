"""``docker cp``: copy archives into and out of a container's root file system."""
