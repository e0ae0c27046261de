"""What puts the running graph on trial: the demo, faults, takeovers, load and long runs."""
