"""Published ports: allocation, mapping, rules, conntrack."""
