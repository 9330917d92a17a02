int certs;
