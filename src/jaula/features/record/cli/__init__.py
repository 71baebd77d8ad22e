"""The commands of the feature ``record``."""
