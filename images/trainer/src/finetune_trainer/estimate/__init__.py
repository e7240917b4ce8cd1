"""How much GPU memory a training will take, found out without a GPU."""
