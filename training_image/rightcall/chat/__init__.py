"""Messages and tools to token ids and a loss mask, by the model's own template.

model_folder.py  tokenizer, special tokens, template and window of a model folder
rendering.py     a template in jinja2's sandbox, as transformers renders it
template.py      prompt and answer as ids, with the mask
"""
