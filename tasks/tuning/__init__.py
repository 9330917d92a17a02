"""What is tried with a kernel and measured of it: where its bytes are."""
