"""The operations console: pages for people who look after lists and nodes, made on the server, without any script."""
