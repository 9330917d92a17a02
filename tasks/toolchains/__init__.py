"""Where the compiler comes from, a module a provider, and the probe."""
