extern const unsigned char input_data[];
