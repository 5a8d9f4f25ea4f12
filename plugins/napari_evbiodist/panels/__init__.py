"""What is seen: one panel a file. Only this package and `bench` need Qt."""
