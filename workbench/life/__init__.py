"""What enter does next: from an empty workspace to a policy that talks, by hand or all at once."""
