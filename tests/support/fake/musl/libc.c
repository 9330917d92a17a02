int piggy_libc = 1;
