"""What stages that train share: opening, the loop, updates, adapters, memory, precision, devices, several processes."""
