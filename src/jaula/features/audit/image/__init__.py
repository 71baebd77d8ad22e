"""``jaula image audit``: files, secrets and packages of images."""
