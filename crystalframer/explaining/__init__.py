"""What predictions are made of: explanations, interventions that test them, and how faithful they are."""
