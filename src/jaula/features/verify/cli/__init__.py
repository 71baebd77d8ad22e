"""The commands of the feature ``verify``."""
