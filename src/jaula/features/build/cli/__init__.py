"""``jaula build``: the build context, progress output and export of the result."""
