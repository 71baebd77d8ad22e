"""The commands of the feature ``audit``."""
