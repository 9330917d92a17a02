# recipe of linux-headers
