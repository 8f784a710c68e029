"""The networks trained from scratch, a file for each, and the layers that they share."""
