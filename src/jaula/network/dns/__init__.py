"""DNS for containers: messages, names and resolver sockets."""
