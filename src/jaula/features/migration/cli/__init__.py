"""The commands of the feature ``migration``."""
