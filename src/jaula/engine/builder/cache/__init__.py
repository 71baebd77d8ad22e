"""The build cache: keys, look-up, ``--cache-from``, pruning."""
