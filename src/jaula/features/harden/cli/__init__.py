"""The commands of the feature ``harden``."""
