"""The commands of the feature ``edit``."""
