"""What is known of runs: read again as they go on, compared, repeated, told of when they end."""
