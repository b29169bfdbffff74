"""Listeners that speak a client's protocol, and the one engine that decides and counts for all of them."""
