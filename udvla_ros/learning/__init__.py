"""From recorded bags and a parent bundle to a child that is judged against it before it is released."""
