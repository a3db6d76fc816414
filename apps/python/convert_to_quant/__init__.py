"""The API of `convert_to_quant`, with the same names, parameters and defaults; qmill does the work.

`convert_to_quant.quantization` converts files, `.converters` single weights, `.utils` has a loader, LoRA arithmetic,
quality and logging.
"""
