# recipe
