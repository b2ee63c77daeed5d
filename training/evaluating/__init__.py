"""What training.evaluate is made of."""
