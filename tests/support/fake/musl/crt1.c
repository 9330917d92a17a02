int piggy_crt = 1;
