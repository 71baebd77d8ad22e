"""The commands of the feature ``doctor``."""
