int extra = 42;
