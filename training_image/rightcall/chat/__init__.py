"""Messages and tools to token ids and a loss mask, by the model's own template.

edges.py         where an answer begins and ends: thoughts in the prompt, the token at which a model stops
messages.py      messages as a template takes them: ids, arguments and content of calls
model_folder.py  tokenizer, special tokens, template and window of a model folder
rendering.py     a template in jinja2's sandbox, as transformers renders it
template.py      prompt and answer as ids, with the mask
"""
