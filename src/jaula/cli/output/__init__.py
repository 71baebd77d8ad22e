"""Output of the commands: tables, templates, terminal."""
