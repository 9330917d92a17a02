# recipe of binutils
