"""IP address management: subnets, pools, addresses."""
