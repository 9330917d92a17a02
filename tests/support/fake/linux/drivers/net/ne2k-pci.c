int ne2k_pci = 1;
