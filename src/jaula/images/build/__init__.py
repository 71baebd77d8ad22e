"""Building images from a Dockerfile: its language, what it copies, what it leaves out."""
