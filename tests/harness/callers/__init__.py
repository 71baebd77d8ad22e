"""The programs that call an OCI runtime, each private: podman, containerd, dockerd, buildah."""
