"""Other forms of a profile, for Docker, compose, Kubernetes, podman and AppArmor.

Each form says in comments what it cannot express. A text of a profile, such as a path, is quoted by
the rules of the form.
"""
