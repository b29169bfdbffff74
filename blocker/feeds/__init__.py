"""What is handed on to others: lists as zones for resolvers."""
