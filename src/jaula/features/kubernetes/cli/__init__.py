"""The commands of the feature ``kubernetes``."""
