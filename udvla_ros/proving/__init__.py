"""How the machine behaves: what it costs, what it does when things fail, how hands take over, and long runs."""
