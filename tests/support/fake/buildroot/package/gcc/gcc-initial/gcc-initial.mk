# recipe of gcc/gcc-initial
