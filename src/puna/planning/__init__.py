"""What a training will need and cost, before it starts: memory, time, money, energy, carbon (§2.2.1)."""
