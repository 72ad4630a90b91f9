"""The rotation Lambda: the authority that says which device may have which certificate."""
