"""Results by content: digests, the identity of code, and the store of what was made earlier."""
