"""The commands of the feature ``checkpoint``."""
