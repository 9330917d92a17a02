int loopback = 1;
