"""How well the monitor tells failures: disturbed episodes in simulation, scored as they would be on an arm."""
