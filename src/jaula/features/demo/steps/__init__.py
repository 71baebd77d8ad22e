"""The steps of the tour, one per file."""
