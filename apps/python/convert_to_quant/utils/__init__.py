"""Loading tensors, LoRA arithmetic, quality and logging."""
