"""``build --lora``: LoRA files of other tools, checked against the model and packed in one form."""
