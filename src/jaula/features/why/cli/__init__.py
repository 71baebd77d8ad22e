"""The commands of the feature ``why``."""
