# recipe of uclibc
