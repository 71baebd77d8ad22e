"""The commands of Kubernetes' YAML: files, and the objects on the engine."""
