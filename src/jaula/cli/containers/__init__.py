"""What the commands on containers share: options, columns, attach, cp."""
