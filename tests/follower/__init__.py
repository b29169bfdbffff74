"""The follower on a real Redis: in step with it, and never worse off for what Redis or the disk do."""
