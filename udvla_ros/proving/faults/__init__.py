"""What happens to the arm when something breaks: faults as data, what they do as numbers."""
