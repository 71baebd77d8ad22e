"""User namespaces of containers: id ranges, ``keep-id``, joining."""
