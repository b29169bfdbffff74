"""The store: the trie's segments, manifests and heads in Redis, and the keys that protect them."""
