"""What stages that train share: opening a checkpoint, adapters, memory, precision, devices, several processes."""
