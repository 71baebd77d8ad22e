"""The commands of the feature ``secrets``."""
