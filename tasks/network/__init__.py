"""The host's network for guests (planned, applied, recorded, undone), and net=lab."""
