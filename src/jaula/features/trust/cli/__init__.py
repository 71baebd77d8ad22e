"""The commands of the feature ``trust``."""
