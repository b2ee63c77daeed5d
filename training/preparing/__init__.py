"""What training.prepare is made of."""
