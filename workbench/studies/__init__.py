"""Many runs as one: sweeps, and scaling studies with their law."""
