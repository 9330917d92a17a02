int null_driver = 1;
