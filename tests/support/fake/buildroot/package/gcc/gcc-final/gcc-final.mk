# recipe of gcc/gcc-final
