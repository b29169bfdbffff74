"""What is handed on to the network: lists as zones for resolvers, listed hosts as routes."""
