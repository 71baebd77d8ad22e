"""``RUN --mount``: parse, resolve and attach the mounts of a build step."""
