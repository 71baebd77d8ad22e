"""Output of commands: tables, templates, terminal."""
