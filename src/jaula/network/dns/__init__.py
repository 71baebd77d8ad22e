"""DNS of containers: messages, names, sockets."""
