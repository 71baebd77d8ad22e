"""``RUN --mount``: resolve and attach the mounts of a build step."""
