"""What training.filter_generated is made of: the criteria, which are functions of arrays, and all that feeds them."""
