"""The commands of the feature ``debug``."""
