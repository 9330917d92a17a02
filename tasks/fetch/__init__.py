"""Sources: downloaded, verified, recorded and unpacked; from upstream or the distribution."""
