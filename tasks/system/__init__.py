"""The host's operating system: processes, files, locks, the terminal, errors."""
