"""What leaves a node for the network's own programs."""
