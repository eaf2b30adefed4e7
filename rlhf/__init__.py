"""Learning: the Bradley-Terry reward model, the policy update, and the loop that closes them."""
